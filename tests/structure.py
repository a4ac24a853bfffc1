#!/usr/bin/env python3
"""Holds the code to its directions and sizes.

usage: tests/structure.py [--write]

- Crates depend on one another as CRATES says, and the picture of it in ARCHITECTURE.md is that of `cargo metadata`;
  --write draws it anew.
- What must stay pure sees no server, no transport and no cluster, as `cargo tree` tells.
- Inside the data plane and the operator, modules use only those that ARROWS allows.
- No file uses another that uses it, over however many steps. A module and the files below it count as one where the
  lower one uses the upper one (`super::`).
- A file has at most 500 lines, a function at most 80 (120 in tests, which have tables of cases), and a line of
  code or comment at most 110 columns.

Exit codes: 0 all holds, 1 something does not, 2 wrong use.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- crates: drawn by tests/structure.py --write -->", "<!-- /crates -->"

# Which crates of ours each may use.
CRATES = {
    "model": set(),
    "runtime": set(),
    "testing": set(),
    "engine": {"model", "runtime"},
    "store": {"model"},
    "events": {"model", "runtime"},
    "shared-tier": {"model", "runtime", "engine"},
    "crds": {"model"},
    "dataplane": {"model", "runtime", "engine", "shared-tier", "store", "events", "crds"},
    "operator": {"crds"},
    "tests": {"model", "runtime", "engine", "events", "crds", "dataplane"},
}
# What tests of a crate may use besides.
IN_TESTS = {"testing"}

# What a crate must not see, over however many steps.
PURE = {
    "model": {"axum", "hyper", "kube", "mongodb", "prometheus", "rdkafka", "redis", "sqlx", "tokio"},
    "engine": {"axum", "hyper", "kube", "mongodb", "rdkafka", "redis", "sqlx"},
    "crds": {"axum", "hyper", "mongodb", "rdkafka", "redis", "sqlx", "tokio"},
    "store": {"axum", "kube", "rdkafka", "redis"},
    "events": {"axum", "kube", "mongodb", "redis"},
}

# Which modules at the top of a crate may use which. `app` is the only one that knows all.
ARROWS = {
    "dataplane": {
        "main": {"app", "args"},
        "app": None,
        "args": {"config", "telemetry"},
        "config": set(),
        "telemetry": set(),
        "testing": set(),
        "security": set(),
        "service": {"security", "telemetry"},
        "problem": {"service"},
        "server": {"problem", "security"},
        "http": {"problem", "security", "server", "service", "telemetry"},
        "gateway": {"config", "http", "problem", "security", "server", "service"},
    },
    # the steps of a reconcile see no cluster
    "operator": {
        "model": set(),
        "children": {"model"},
        "drift": {"children", "model"},
        "validate": {"model"},
        "rollout": {"children", "drift", "model", "validate"},
        "status": {"children", "drift", "model", "rollout", "validate"},
        "*": None,
    },
}

LINES_MAX = 500
FUNCTION_LINES_MAX = 80
TEST_LINES_MAX = 120
COLUMNS_MAX = 110


def main():
    write = sys.argv[1:] == ["--write"]
    if sys.argv[1:] and not write:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    packages = metadata()
    faults = [*crates(packages), *picture(packages, write), *pure()]
    for crate in CRATES:
        files, uses = graph(crate)
        faults += [*arrows(crate, uses), *circles(crate, files, uses)]
    for path in sources():
        faults += sizes(path)
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


def run(*args):
    return subprocess.run(args, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def metadata():
    """Each crate of the workspace by its folder, with those of ours that it uses, and those that its tests use."""
    told = json.loads(run("cargo", "metadata", "--format-version=1", "--no-deps", "--locked"))
    folders = {package["name"]: Path(package["manifest_path"]).parent.name for package in told["packages"]}
    packages = {}
    for package in told["packages"]:
        uses = [(folders[each["name"]], each["kind"]) for each in package["dependencies"] if each["name"] in folders]
        packages[folders[package["name"]]] = (
            {folder for folder, kind in uses if kind is None},
            {folder for folder, kind in uses if kind == "dev"},
        )
    return packages


def crates(packages):
    for folder in sorted(set(packages) ^ set(CRATES)):
        yield f"{folder}: tests/structure.py and Cargo.toml do not both know this crate"
    for folder in sorted(set(packages) & set(CRATES)):
        uses, in_tests = packages[folder]
        for other in sorted(uses - CRATES[folder]):
            yield f"{folder}/Cargo.toml: {folder} may not use {other}"
        for other in sorted(in_tests - CRATES[folder] - IN_TESTS):
            yield f"{folder}/Cargo.toml: the tests of {folder} may not use {other}"


def picture(packages, write):
    """The crates as a Mermaid graph. An arrow that follows from others is left out."""
    uses = {folder: uses for folder, (uses, _) in packages.items() if folder not in ("testing", "tests")}

    def reach(folder):
        return set().union(*({other} | reach(other) for other in uses[folder])) if uses[folder] else set()

    lines = ["```mermaid", "flowchart TD"]
    for folder in sorted(uses):
        further = set().union(*(reach(other) for other in uses[folder])) if uses[folder] else set()
        lines += [f"  {folder} --> {other}" for other in sorted(uses[folder] - further)]
    drawn = "\n".join([BEGIN, *lines, "```", END])
    page = PAGE.read_text()
    there = re.search(re.escape(BEGIN) + ".*?" + re.escape(END), page, re.DOTALL)
    if not there:
        yield f"ARCHITECTURE.md: there is no {BEGIN}"
    elif there.group() != drawn:
        if write:
            PAGE.write_text(page.replace(there.group(), drawn))
        else:
            yield "ARCHITECTURE.md: the picture of the crates differs from Cargo.toml: tests/structure.py --write"


def pure():
    for folder, unseen in PURE.items():
        tree = run("cargo", "tree", "--locked", "--package", f"flyweight-{folder}", "--edges", "normal", "--prefix", "none")
        seen = {line.split(" ")[0] for line in tree.splitlines() if line}
        for name in sorted(seen & unseen):
            yield f"{folder}: sees {name}: cargo tree --package flyweight-{folder} --edges normal --invert {name}"


def graph(crate):
    """The files of a crate by their modules, and for each module those that it uses. Tests are left out."""
    root = ROOT / crate / "src"
    files = {}
    for path in root.rglob("*.rs"):
        parts = tuple(path.relative_to(root).with_suffix("").parts)
        files[() if parts in (("lib",), ("main",)) else parts] = path

    def module_of(segments):
        segments = tuple(segments)
        while segments not in files:
            if not segments:
                return None
            segments = segments[:-1]
        return segments

    uses = {module: set() for module in files}
    for module, path in files.items():
        if is_test(path):
            continue
        for used in paths_in(path.read_text()):
            first, *rest = used.split("::")
            base = [] if first == "crate" else list(module) if first == "self" else list(module[:-1])
            while rest and rest[0] == "super":
                base, rest = base[:-1], rest[1:]
            other = module_of(base + [part for part in rest if part != "self"])
            if other is not None and other != module:
                uses[module].add(other)
    return files, uses


def is_test(path):
    return bool(re.search(r"/(tests|conformance|testing|fixture|support|sample)(/|\.rs|_)", str(path)))


def paths_in(text):
    """What a file uses of its own crate: `crate::…`, `super::…` and `self::…`."""
    text = re.sub(r"//[^\n]*", "", text.split("#[cfg(test)]\nmod tests {")[0])
    imports = re.compile(r"use ((?:crate|super|self)::[^;]+);")
    for tree in imports.findall(text):
        yield from leaves(re.sub(r"\s+", "", tree.replace(" as ", "@")))
    yield from re.findall(r"(?<![\w:])(?:crate|super)(?:::\w+)+", imports.sub("", text))


def leaves(tree):
    """The single paths of a tree of imports."""
    at = tree.find("{")
    if at < 0:
        return [tree.split("@")[0]]
    parts, depth, part = [], 0, ""
    for character in tree[at + 1 : tree.rfind("}")]:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += character
    return [tree[:at] + leaf for each in [*parts, part] if each for leaf in leaves(each)]


def arrows(crate, uses):
    allowed = ARROWS.get(crate)
    if allowed is None:
        return
    for module, others in sorted(uses.items()):
        top = module[0] if module else None
        if top is None or allowed.get(top, allowed.get("*", set())) is None:
            continue
        for other in sorted({other[0] for other in others if other and other[0] != top}):
            if other not in allowed.get(top, set()):
                yield f"{crate}/src/{'/'.join(module)}.rs: {top} may not use {other}"


def circles(crate, files, uses):
    """Modules that use one another in a circle."""
    edges = {one: {other for other in others if one[: len(other)] != other} for one, others in uses.items()}
    reached = {}

    def reach(module):
        if module not in reached:
            seen, open_ends = set(), [module]
            while open_ends:
                for other in edges[open_ends.pop()] - seen:
                    seen.add(other)
                    open_ends.append(other)
            reached[module] = seen
        return reached[module]

    told = set()
    for module in sorted(files):
        if module in reach(module) and module not in told:
            circle = {other for other in reach(module) if module in reach(other)}
            told |= circle
            names = ", ".join(sorted("/".join(other) or "lib" for other in circle))
            yield f"{crate}/src: these files use one another in a circle: {names}"


def sources():
    for crate in CRATES:
        for path in sorted((ROOT / crate).rglob("*.rs")):
            yield path


def sizes(path):
    name, lines = path.relative_to(ROOT), path.read_text().split("\n")
    if len(lines) > LINES_MAX + 1:
        yield f"{name}: {len(lines) - 1} lines, {LINES_MAX} at most"
    begun, most = None, TEST_LINES_MAX if is_test(path) or name.parts[0] == "tests" else FUNCTION_LINES_MAX
    for number, line in enumerate(lines, 1):
        # rustfmt lets the sign after a pattern stand beyond
        if len(line.removesuffix(" =")) > COLUMNS_MAX and not is_text(line):
            yield f"{name}:{number}: {len(line)} columns, {COLUMNS_MAX} at most"
        head = re.match(r"( *)(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?(?:unsafe )?fn (\w+)", line)
        if head and not line.rstrip().endswith((";", "}")):
            begun = (number, *head.groups())
        elif begun and line == f"{begun[1]}}}":
            if number - begun[0] + 1 > most:
                yield f"{name}:{begun[0]}: {begun[2]} has {number - begun[0] + 1} lines, {most} at most"
            begun = None


def is_text(line):
    """Whether a long line is one text, which rustfmt does not break."""
    return '"' in line or "`" in line or "https://" in line or line.endswith("\\") or "└" in line


if __name__ == "__main__":
    sys.exit(main())
