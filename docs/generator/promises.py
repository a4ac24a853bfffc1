"""Which mechanisms keep which promise, and the tests that fail without them."""

import tomllib

from .page import ROOT, cell, read, table

MARK = "<!-- the mechanisms of tests/mechanisms/list.toml: docs/generate.py writes what is below -->"


def promises():
    """The part of each promise's page that names mechanisms; above the mark it is written by hand."""
    listed = tomllib.loads(read("tests/mechanisms/list.toml"))["mechanism"]
    pages = {}
    for path in sorted((ROOT / "docs/concepts/promises").glob("[0-9]*.md")):
        number, text = int(path.name.split("-")[0]), path.read_text()
        if MARK not in text:
            continue
        rows = [
            [f"`{one['name']}`", f"`{one['file']}`", cell(one["why"]), f"`{one['test']}`"]
            for one in listed
            if one["promise"] == number
        ]
        head = ["mechanism", "where", "what goes wrong without it", "the test that fails then"]
        above = text.split(MARK)[0]
        pages[str(path.relative_to(ROOT))] = "\n".join([above + MARK, "", *table(head, rows)]) + "\n"
    return pages
