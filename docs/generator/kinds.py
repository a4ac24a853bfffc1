"""The three kinds, from their definitions."""

import json
import re

from .page import cell, page, read, sentences, table
from .yaml import Yaml

CLASSES = ("Hot", "Rolling", "Fixed")


def kind(plural, short):
    source = f"crds/generated/{plural}.yaml"
    definition = Yaml(read(source)).document()
    version = definition["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    name = definition["spec"]["names"]["kind"]
    about = f"""{schema["description"]} Group and version are `flyweight.dev/{version["name"]}`, the short
        name is `{short}`. `kubectl explain {short}.spec` shows the same. A field with ✱ must be
        there."""
    classes = """*Hot* is applied in running pods. *Rolling* replaces pods one by one. *Fixed* is refused once
        the resource is there."""
    columns = [
        [f"`{one['name']}`", f"`{cell(one['jsonPath'])}`"]
        for one in version.get("additionalPrinterColumns", [])
    ]
    return page(
        name,
        [source],
        about,
        "Each field of the spec has a change class.",
        *sentences(classes),
        "",
        "## spec",
        "",
        *fields(schema["properties"]["spec"], "spec"),
        "## status",
        "",
        "The operator writes it; nobody else should.",
        "",
        *fields(schema["properties"]["status"], "status"),
        "## Columns of kubectl get",
        "",
        *table(["column", "field"], columns),
    )


def fields(schema, path):
    """A table of what is directly in an object, then one for each object in it."""
    rows, below = [], []
    for name, field in (schema.get("properties") or {}).items():
        inner, suffix = field, ""
        while inner.get("type") == "array":
            inner, suffix = inner["items"], suffix + "[]"
        if path == "status" and name == "conditions":
            inner = {}
        more = field.get("additionalProperties")
        required = " ✱" if name in schema.get("required", []) else ""
        about, change = change_class(field.get("description", ""))
        rows.append([f"`{name}{suffix}`{required}", shape(field), default(field), change, cell(about)])
        if inner.get("properties"):
            below.append((inner, f"{path}.{name}{suffix}"))
        elif isinstance(more, dict) and more.get("properties"):
            below.append((more, f"{path}.{name}.*"))
    head = ["field", "type", "default", "change", "what it says"]
    if path.startswith("status"):
        head, rows = [head[0], head[1], head[4]], [[row[0], row[1], row[4]] for row in rows]
    lines = [*table(head, rows), ""] if rows else []
    rules = schema.get("x-kubernetes-validations", [])
    if rules:
        lines += ["The API server refuses what breaks one of these rules:", ""]
        lines += [f"- {rule['message']}" for rule in rules] + [""]
    for inner, at in below:
        lines += [f"### {at}", "", *fields(inner, at)]
    return lines


def change_class(text):
    """The description without its last word, where that is a change class, and the class."""
    text = " ".join(text.split())
    found = re.search(rf"\s?\b({'|'.join(CLASSES)})\b(, but [^.]*|\s\([^)]*\))?\.$", text)
    if not found:
        return text, "–"
    return text[: found.start()], f"{found[1]}{found[2] or ''}"


def shape(field):
    if field.get("x-kubernetes-int-or-string"):
        pattern = field.get("pattern", "")
        if "%" in pattern:
            return "share or bytes, such as `85%` or `512Mi`"
        if "[.]" in pattern:
            return 'share, such as `"0.8"`'
        return "bytes, such as `256Mi` or `256MB`"
    if field.get("type") == "array":
        return f"list of {shape(field['items'])}"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if "[0-9]{1,9}(ms|s|m|h|d)" in field.get("pattern", ""):
        return "duration, such as `30s`"
    least, most = field.get("minimum"), field.get("maximum")
    if field.get("type") == "integer" and least is not None and most is not None:
        return f"integer, {least:g} to {most:.0f}"
    return field.get("type", "any")


def default(field):
    if "default" not in field:
        return "–"
    value = field["default"]
    if isinstance(value, dict):
        return "as below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{json.dumps(value)}`"
    return f"`{value}`"
