"""Judges reports of the Autobahn suite: autobahn.py FOLDER < rows CASES|SERVERS|BEHAVIOUR of what may be.

Prints a line for each server, and one for each case that is neither as it should be nor among the rows. Exit code 1 if there is one.
"""

import json
import pathlib
import sys
from collections import Counter
from fnmatch import fnmatchcase

AS_IT_SHOULD_BE = {"OK", "INFORMATIONAL"}


def main(folder, rows):
    index = json.loads(pathlib.Path(folder, "index.json").read_text())
    faults = 0
    for server, cases in sorted(index.items()):
        counts = Counter()
        for name, case in cases.items():
            found = {case["behavior"], case["behaviorClose"]}
            unlisted = {one for one in found - AS_IT_SHOULD_BE if not may_be(name, server, one, rows)}
            counts["as it should be" if found <= AS_IT_SHOULD_BE else "listed" if not unlisted else "faulty"] += 1
            if unlisted:
                faults += 1
                report = json.loads(pathlib.Path(folder, case["reportfile"]).read_text())
                print(f"{server}: {name}: {found}: {report['result']} {report['resultClose']}")
        print(f"{server}: {len(cases)} cases: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
        if not cases:
            faults += 1
    return 1 if faults or not index else 0


def may_be(name, server, behaviour, rows):
    return any(
        fnmatchcase(name, cases) and servers in (server, "everywhere") and behaviour in listed.split(", ")
        for cases, servers, listed in rows
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], [line.strip().split("|") for line in sys.stdin if line.strip()]))
