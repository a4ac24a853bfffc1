#!/usr/bin/env python3
"""Holds the documents to what they say: links, widths, sentences, generated pages, commands.

usage: tests/docs.py                        checks all Markdown; no network, nothing but the standard library
       tests/docs.py --site DIR             checks that the built site asks no other host
       tests/docs.py --files PAGE DIR       writes the files of a page (<!-- file: NAME --> before them)
       tests/docs.py --run PAGE URL         runs the commands of a page that are marked so, at this address,
                                            but for blocks of make: whoever calls this has started the process

A block of `sh` has one of two comments before it:
    <!-- run: SCRIPT -->     SCRIPT has each of its lines, or runs the page by `tests/docs.py --run PAGE`
    <!-- not run: KEY -->    KEY is one of NOT_RUN, which says why
and, where a page is run, may have this comment behind it:
    <!-- answers: 201, 304 -->   the statuses that its `curl -i` lines print, in their order
"""

import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 110
WORDS_MAX = 25

# Why a block of commands is run by no test.
NOT_RUN = {
    "cluster": "it needs the reader's own cluster, registry or names; the demo does the like on a local one",
    "server": "it needs a server of somebody else's that the tests do not install",
    "long": "it is a target of the Makefile that takes long, and is a test itself",
    "shell": "it prepares the reader's own shell or machine",
}
# Pages whose lines are not wrapped yet, and who has to.
WIDE = {
    "tests/http/rules.md": "its rows are the test's input, and its words explain them",
    "tests/tools/README.md": "it is wrapped at 120 columns",
}
# Sentences are counted in what is written for users; these are measured, moved or generated texts.
WORDY = ("docs/lab/", "docs/operations/owasp.md", "docs/concepts/comparison.md", "ARCHITECTURE.md", "tests/")
# The ten questions of this page are found from README in so many links, without this page itself.
QUESTIONS, LINKS_MAX = "docs/questions.md", 2
# Variables that are no setting: of tests, of a terminal, of what Kubernetes itself says.
INNER = {"HOSTNAME", "NO_COLOR", "KAFKA_BROKERS", "FLYWEIGHT_REQUIRE_SERVERS"}


def main(arguments):
    match arguments:
        case []:
            faults = check()
        case ["--site", folder]:
            faults = check_site(Path(folder))
        case ["--files", page, folder]:
            faults = write_files(page, Path(folder))
        case ["--run", page, url]:
            faults = run(page, url)
        case _:
            sys.exit(__doc__.split("\n\n")[1])
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


def check():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    pages = {path: Page(path) for path in sorted(listed.stdout.split()) if (ROOT / path).exists()}
    faults = [fault for page in pages.values() for fault in page.faults(pages)]
    faults += generated()
    faults += questions(pages)
    faults += variables(pages)
    faults += navigation(pages)
    if not faults:
        blocks = sum(len(page.commands()) for page in pages.values())
        links = sum(len(page.links()) for page in pages.values())
        print(f"{len(pages)} pages, {links} links, {blocks} blocks of sh")
    return faults


class Page:
    def __init__(self, path):
        self.path = path
        self.text = (ROOT / path).read_text()
        self.lines = self.text.splitlines()
        self.fenced = self.find_fences()

    def find_fences(self):
        """For each line, whether it is part of a fenced block."""
        found, fence = [], None
        for line in self.lines:
            mark = re.match(r"\s*(```+|~~~+)", line)
            if fence is None and mark:
                fence = mark[1]
                found.append(True)
            elif fence is not None:
                found.append(True)
                if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                    fence = None
            else:
                found.append(False)
        return found

    def prose(self):
        """The lines outside blocks, with their numbers from 1."""
        return [(at + 1, line) for at, line in enumerate(self.lines) if not self.fenced[at]]

    def faults(self, pages):
        faults = [*self.broken_links(pages), *self.wide_lines(), *self.long_sentences(), *self.unseparated()]
        faults += [*self.unknown_paths(), *self.unknown_tests()]
        return faults + [fault for block in self.commands() for fault in block.faults(self)]

    def at(self, number, text):
        return f"{self.path}:{number}: {text}"

    # -- links

    def links(self):
        found = []
        for number, line in self.prose():
            bare = re.sub(r"`[^`]*`", "", line)
            found += [(number, target) for target in re.findall(r"\]\(([^)\s]+)\)", bare)]
        return found

    def targets(self):
        """The files that this page links to, from the root."""
        for number, link in self.links():
            if not re.match(r"[a-z]+:", link):
                path, _, anchor = link.partition("#")
                file = (ROOT / self.path).parent / path if path else ROOT / self.path
                yield number, link, file.resolve(), anchor

    def broken_links(self, pages):
        for number, link, file, anchor in self.targets():
            if not file.exists() or not file.is_relative_to(ROOT):
                yield self.at(number, f"{link}: there is no such file")
                continue
            name = str(file.relative_to(ROOT))
            if anchor and name in pages and anchor not in pages[name].anchors():
                yield self.at(number, f"{link}: there is no such heading")

    def anchors(self):
        """The anchors of headings, where GitHub and MkDocs make the same of one."""
        found = set()
        for _, line in self.prose():
            heading = re.match(r"#+ (.*)", line)
            if heading:
                bare = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
                github = re.sub(r"[^\w\- ]", "", bare).replace(" ", "-")
                mkdocs = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", bare)).strip("-")
                found |= {github} & {mkdocs}
        return found

    # -- the form

    def wide_lines(self):
        if self.path in WIDE:
            return
        for number, line in self.prose():
            if len(line) > WIDTH and not line.lstrip().startswith("|"):
                yield self.at(number, f"{len(line)} columns: at most {WIDTH} outside of blocks and tables")

    def long_sentences(self):
        if self.path.startswith(WORDY) or "Generated by docs/generate.py" in self.text:
            return
        paragraph, start = [], 0
        for number, line in [*self.prose(), (0, "")]:
            new = re.match(r"\s*([-*] |\d+\. )", line)
            if paragraph and (new or not line.strip() or line.lstrip().startswith(("|", "#", "<!--"))):
                yield from self.counted(start, " ".join(paragraph))
                paragraph = []
            if line.strip() and not line.lstrip().startswith(("|", "#", "<!--", "![", ">")):
                start = start if paragraph else number
                paragraph.append(re.sub(r"^\s*([-*] |\d+\. )", "", line).strip())

    def counted(self, number, text):
        bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "x", text))
        for sentence in re.split(r"(?<=[.!?:])\s+|;\s+", bare):
            words = len(re.findall(r"[\w'’-]+", sentence))
            if words > WORDS_MAX:
                yield self.at(number, f"{words} words: at most {WORDS_MAX} in a sentence: {sentence[:60]}…")

    def unseparated(self):
        """Lists and tables that MkDocs takes for a part of the paragraph before, and blocks within lists."""
        for number, line in enumerate(self.lines, 1):
            if self.path.startswith("docs/") and re.match(r" +(```|\|)", line):
                yield self.at(number, "MkDocs knows no blocks or tables within lists")
        before = ""
        for number, line in self.prose():
            is_item, is_row = re.match(r"([-*]|\d+\.) ", line), line.startswith("|")
            inside = re.match(r"(([-*]|\d+\.) |\s|\||#|<!--)", before) or not before.strip()
            if (is_item or (is_row and not before.startswith("|"))) and not inside:
                yield self.at(number, "an empty line is missing before the list or table")
            before = line

    # -- what inline code names

    def unknown_paths(self):
        if not self.path.startswith("docs/") or self.path == "docs/concepts/comparison.md":
            return
        for number, line in self.prose():
            for code in re.findall(r"`([\w./*-]+/[\w.*-]+\.(?:rs|md|sh|py|yaml|toml|http|json|svg))`", line):
                if not code.startswith("/") and not any(ROOT.glob(code)):
                    yield self.at(number, f"there is no {code}")

    def unknown_tests(self):
        """Tests are named by the end of what `cargo test` takes: a function or module of the sources."""
        if "promises/" not in self.path and not self.path.endswith("owasp.md"):
            return
        for number, line in self.prose():
            for code in re.findall(r"`(?:suites )?((?:\w+::)+\w*)`", line):
                last = [part for part in code.split("::") if part][-1]
                if not is_in_sources(last):
                    yield self.at(number, f"there is no test {code}")

    # -- commands

    def commands(self):
        found, at = [], 0
        while at < len(self.lines):
            opening = re.match(r"(\s*)```sh\s*$", self.lines[at])
            if not opening:
                at += 1
                continue
            end = at + 1
            while self.lines[end].strip() != "```":
                end += 1
            before = next((line for line in reversed(self.lines[:at]) if line.strip()), "")
            after = next((line for line in self.lines[end + 1 :] if line.strip()), "")
            found.append(Block(at + 1, before.strip(), self.lines[at + 1 : end], after.strip()))
            at = end + 1
        return found


class Block:
    def __init__(self, number, before, lines, after):
        self.number = number
        self.lines = lines
        mark = re.match(r"<!-- (run|not run): (.+) -->$", before)
        self.mark, self.value = (mark[1], mark[2]) if mark else (None, None)
        answers = re.match(r"<!-- answers: (.+) -->$", after)
        self.answers = re.findall(r"\d+", answers[1]) if answers else None

    def text(self):
        return textwrap.dedent("\n".join(self.lines))

    def command_lines(self):
        """What is typed: lines that go on are one, comments are left out."""
        joined = re.sub(r"\\\n\s*", "", self.text())
        bare = [re.sub(r"(^|\s+)# .*$", "", line).strip() for line in joined.splitlines()]
        return [line for line in bare if line and not line.startswith("#")]

    def faults(self, page):
        if self.mark is None:
            return [
                page.at(
                    self.number, "who runs this? Put <!-- run: SCRIPT --> or <!-- not run: KEY --> before it"
                )
            ]
        if self.mark == "not run":
            known = self.value in NOT_RUN
            return (
                [] if known else [page.at(self.number, f'"{self.value}" is not one of {", ".join(NOT_RUN)}')]
            )
        script = ROOT / self.value
        if not script.is_file():
            return [page.at(self.number, f"there is no {self.value}")]
        code = "\n".join(
            line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")
        )
        words = squeezed(code)
        runs_page = f"tests/docs.py --run {page.path}" in words
        missing = [line for line in self.command_lines() if not is_run(line, words, runs_page)]
        return [page.at(self.number, f"{self.value} does not run: {line}") for line in missing]


def is_run(line, script, runs_page):
    """Whether a script has a line, or runs the page. What make is told may stand elsewhere in it."""
    if line.startswith("make "):
        return all(f" {word} " in f" {script} " for word in squeezed(line).split())
    return runs_page or squeezed(line) in script


def squeezed(text):
    """A text in which spaces, options that keep quiet, and a script's own folder and namespace are left out."""
    text = re.sub(r'--(no-print-directory|quiet|silent|namespace "\$NAMESPACE")(?=\s)', " ", text)
    return " ".join(re.sub(r'"?\$RUN/([\w-]+)"?', r"\1", text).split())


SOURCES = []


def is_in_sources(name):
    if not SOURCES:
        folders = (
            "model runtime engine shared-tier store events dataplane crds operator testing tests"
        ).split()
        for folder in folders:
            SOURCES.extend((path.stem, path.read_text()) for path in (ROOT / folder).rglob("*.rs"))
    return any(stem == name or re.search(rf"\b(fn|mod|struct|enum) {name}\b", text) for stem, text in SOURCES)


def generated():
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True
    )
    return [f"{line}: run docs/generate.py" for line in done.stderr.splitlines()]


def questions(pages):
    """Each answer of the reading test is found from README within two links, without the test itself."""
    near, reached = {ROOT / "README.md"}, {ROOT / "README.md"}
    for _ in range(LINKS_MAX):
        pages_near = [pages.get(str(file.relative_to(ROOT))) for file in near]
        near = {
            file for page in pages_near if page and page.path != QUESTIONS for _, _, file, _ in page.targets()
        }
        reached |= near
    page = pages[QUESTIONS]
    rows = [
        (number, link, file)
        for number, link, file, _ in page.targets()
        if page.lines[number - 1].startswith("|")
    ]
    faults = [] if len(rows) >= 10 else [f"{QUESTIONS}: {len(rows)} answers: there have to be ten"]
    return faults + [
        page.at(number, f"{link} is not found from README within {LINKS_MAX} links")
        for number, link, file in rows
        if file not in reached
    ]


def variables(pages):
    """Each variable that a program reads is in the page on them."""
    page = pages["docs/reference/environment.md"]
    read = set()
    for folder in ("dataplane/src", "operator/src", "model/src"):
        for path in (ROOT / folder).rglob("*.rs"):
            text = re.split(r"#\[cfg\(test\)\]\s*\nmod \w+ \{", path.read_text())[0]
            read |= set(re.findall(r'env = "([A-Z_]+)"', text))
            read |= set(re.findall(r'(?:env::var(?:_os)?|\bget)\("([A-Z_]+)"\)', text))
            read |= set(re.findall(r'(?:number|span)\(&get, "([A-Z_]+)"\)', text))
            read |= set(re.findall(r'told\("([A-Z_]+)"\)', text))
    return [
        f"{page.path}: {name} is missing" for name in sorted(read - INNER) if f"`{name}`" not in page.text
    ]


def navigation(pages):
    """Each page of docs/ has its place in the site's navigation."""
    named = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    of_site = {path.removeprefix("docs/") for path in pages if path.startswith("docs/")}
    hidden = {path for path in of_site if "This page has moved" in pages[f"docs/{path}"].text}
    return [f"mkdocs.yml: docs/{path} has no place in nav" for path in sorted(of_site - named - hidden)]


def check_site(folder):
    """What a browser loads by itself is in the site: links that a reader follows are no matter."""
    loaded = r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//|<link\b[^>]*\bhref="(?:https?:)?//'
    loaded += r"|url\(['\"]?(?:https?:)?//|@import ['\"](?:https?:)?//"
    faults = []
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".css"):
            text = re.sub(r'<link rel="canonical"[^>]*>', "", path.read_text())
            faults += [
                f"{path}: loads from another host: {found[0][:80]}" for found in re.finditer(loaded, text)
            ]
    if not (folder / "index.html").exists():
        faults.append(f"{folder} has no index.html")
    return faults


def write_files(name, folder):
    page = Page(name)
    shown = re.findall(r"<!-- file: ([\w./-]+) -->\s*```\w*\n(.*?)```", page.text, re.S)
    for path, text in shown:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return [] if shown else [f"{name} shows no file"]


def run(name, url):
    """Runs each marked block in one shell of its own, and compares the statuses that it prints."""
    host = url.split("://")[-1].rstrip("/")
    blocks = [block for block in Page(name).commands() if block.mark == "run"]
    blocks = [
        block for block in blocks if not any(line.startswith("make ") for line in block.command_lines())
    ]
    if not blocks:
        return [f"{name} has no commands that are run"]
    with tempfile.TemporaryDirectory() as folder:
        for block in blocks:
            script = block.text().replace("localhost:8080", host)
            script = re.sub(r"\bcurl ", "curl --silent --show-error --max-time 20 ", script)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
            )
            # a body may end without a line of its own
            told = re.findall(r"HTTP/[\d.]+ (\d{3}) ?[A-Z]", done.stdout)
            where = f"{name}:{block.number}"
            if done.returncode:
                return [f"{where}: exit code {done.returncode}: {done.stderr.strip()}\n{done.stdout[-2000:]}"]
            if block.answers is not None and told != block.answers:
                return [f"{where}: answered with {told}, not {block.answers}\n{done.stdout[-2000:]}"]
    print(f" ok {name}: {len(blocks)} blocks of commands")
    return []


if __name__ == "__main__":
    main(sys.argv[1:])
