#!/usr/bin/env python3
"""Writes the pages of docs/ that are made from the sources; --check says which are not as they would be.

Only the standard library is needed. Each page names what it is made from.
"""

import sys

sys.dont_write_bytecode = True  # nothing is left in the folder that the site is built from

from generator.chart import chart
from generator.commands import command_lines
from generator.events import events
from generator.http import problems, routes
from generator.kinds import kind
from generator.metrics import metrics
from generator.page import ROOT, read
from generator.promises import promises


def main(arguments):
    if arguments not in ([], ["--check"]):
        sys.exit("usage: docs/generate.py [--check]")
    pages = generate()
    stale = [path for path, text in pages.items() if read(path, "") != text]
    if arguments:
        for path in stale:
            print(f"{path} is not as docs/generate.py makes it", file=sys.stderr)
        sys.exit(1 if stale else 0)
    for path in stale:
        (ROOT / path).write_text(pages[path])
        print(f"written: {path}")


def generate():
    """Each page that is made, by its path."""
    return {
        "docs/reference/cachetier.md": kind("cachetiers", "ctier"),
        "docs/reference/flyweightpool.md": kind("flyweightpools", "fwp"),
        "docs/reference/flyweightservice.md": kind("flyweightservices", "fws"),
        "docs/reference/metrics.md": metrics(),
        "docs/reference/problems.md": problems(),
        "docs/reference/command-lines.md": command_lines(),
        "docs/reference/routes.md": routes(),
        "docs/reference/events.md": events(),
        "docs/reference/chart.md": chart(),
        **promises(),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
