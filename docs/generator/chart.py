"""The values of the chart."""

import re

from .page import cell, page, read, table


def chart():
    source = "charts/flyweight/values.yaml"
    rows, comment, path = [], [], []
    for line in read(source).splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        found = re.match(r"(\s*)([\w]+):\s*(.*)$", line)
        if not found:
            comment = [] if not text else comment
            continue
        depth, name, value = len(found[1]) // 2, found[2], found[3]
        path = [*path[:depth], name]
        if value:
            rows.append([f"`{'.'.join(path)}`", f"`{value}`", cell(" ".join(comment)) or "–"])
        elif comment:
            rows.append([f"`{'.'.join(path)}`", "as below", cell(" ".join(comment))])
        comment = []
    about = (
        """The values of the Helm chart `charts/flyweight`. `values.schema.json` refuses what is not here."""
    )
    return page("Chart values", [source], about, *table(["value", "default", "what it says"], rows))
