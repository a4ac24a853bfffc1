"""Lets the site link to files outside of docs/: they become part of it, pages as pages, all others as text.

MkDocs calls the functions that begin with `on_`.
"""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_files(files, config):
    """Adds what pages link to, and what is linked to from there."""
    for path in [src for src in files.src_uris if src.endswith((".py", ".toml"))]:
        files.remove(files.get_file_from_path(path))
    waiting = [(file.src_uri, DOCS / file.src_uri) for file in files.documentation_pages()]
    while waiting:
        _, page = waiting.pop()
        for target in linked(page.read_text(), page):
            at = place(target)
            if files.get_file_from_path(at) is not None or target.is_relative_to(DOCS):
                continue
            if target.is_dir():
                names = sorted(str(inner.relative_to(ROOT)) for inner in target.rglob("*") if inner.is_file())
                content = "\n".join(names)
            else:
                content = target.read_text()
            files.append(File.generated(config, at, content=content))
            if target.suffix == ".md":
                waiting.append((at, target))
    return files


def on_page_markdown(markdown, page, config, files):
    """Changes links so that they lead to those files."""
    at = page.file.src_uri
    source = DOCS / at if not at.startswith("source/") else ROOT / at.removeprefix("source/")

    def change(found):
        target = resolve(found[2], source)
        if target is None:
            return found[0]
        anchor = "#" + found[2].split("#")[1] if "#" in found[2] else ""
        depth = at.count("/")
        return f"{found[1]}{'../' * depth}{place(target)}{anchor}{found[3]}"

    lines, fenced = [], False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        lines.append(line if fenced else LINK.sub(change, line))
    return "\n".join(lines)


def on_post_build(config):
    """Writes the search's index as a script, which a browser loads from files, too."""
    folder = Path(config.site_dir) / "search"
    docs = json.loads((folder / "search_index.json").read_text())["docs"]
    (folder / "offline.js").write_text(f"window.offlineSearch = {json.dumps(docs)};\n")


def linked(text, page):
    bare = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    return [target for _, link, _ in LINK.findall(bare) if (target := resolve(link, page)) is not None]


def resolve(link, page):
    """The file that a link means; none where it leads elsewhere, or to a heading of the same page."""
    path = link.split("#")[0]
    if not path or re.match(r"[a-z]+:", link):
        return None
    target = (page.parent / path).resolve()
    return target if target.exists() and target.is_relative_to(ROOT) else None


def place(target):
    """Where a file is in the site, from its root."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    at = "source/" + target.relative_to(ROOT).as_posix()
    return at if target.suffix in (".md", ".svg", ".png") else at + ".txt"
