"""The metrics, from where the sources register them."""

import re
from dataclasses import dataclass

from .page import STRING, cell, page, rust, table


@dataclass
class Metric:
    name: str
    help: str
    labels: str
    type: str
    source: str


# what begins as a metric does and is none: tables, a collation, what prefixes are made of
NO_METRICS = re.compile(
    r"flyweight_(operator_)?$|flyweight_dataplane$|flyweight_decimal$|flyweight_migrations$"
)


def metrics():
    found = {"data plane": [], "gateway": [], "operator": []}
    sources = [*rust("dataplane/src"), *rust("runtime/src"), *rust("operator/src")]
    for path, text in sources:
        part = "operator" if path.startswith("operator") else "data plane"
        found[part] += counted(path, text)
        if path == "dataplane/src/gateway/server.rs":
            found["gateway"] += of_gateway(path, text)
    order = [
        ("data plane", "The data plane", 9090),
        ("gateway", "The gateway", 9090),
        ("operator", "The operator", 9090),
    ]
    parts = []
    for part, title, port in order:
        rows = [
            [f"`{one.name}`", one.type, one.labels or "–", cell(one.help)]
            for one in sorted(found[part], key=lambda one: one.name)
        ]
        parts += [f"## {title}", "", f"At `/metrics` on port {port}.", ""]
        parts += [*table(["metric", "type", "labels", "what it counts"], rows), ""]
    about = """Every metric with the text that Prometheus shows as its help. The alerts of `configs/alerts/flyweight.yaml` and the
        dashboards of `configs/dashboards` use them."""
    files = sorted({one.source for part in found.values() for one in part})
    return page("Metrics", files, about, *parts)


def counted(path, text):
    flat = re.sub(r"\\\n\s*", "", text)
    for found in re.finditer(r'"(flyweight_[a-z0-9_]+)"', flat):
        name, before, after = found[1], flat[: found.start()], flat[found.end() :]
        if NO_METRICS.match(name) or re.search(r"&str = $|starts_with\($", before):
            continue
        literal = re.match(rf"\s*,\s*{STRING}", after)
        variable = re.match(r"\s*,\s*([a-z_]+)", after)
        if not literal and not variable:
            continue
        help_text = literal[1] if literal else re.findall(rf"let {variable[1]} =\s*{STRING}", before)[-1]
        called = re.search(r"(\w+(?:::\w+)?)!?\(\s*$", before)
        # a row of a table of families: its labels are those of the table
        rows = re.findall(r"const (\w+): &\[\(&str, &str\)\]", before)
        caller = called[1] if called else "tier" if rows[-1] == "TIER" else "pool"
        yield Metric(name, help_text, labels(caller, after), metric_type(name, before, caller), path)
    if path == "operator/src/metrics.rs":
        for one in re.finditer(rf"counter\(\s*{STRING},\s*{STRING},\s*&\[([^\]]*)\]", flat):
            yield Metric(f"flyweight_operator_{one[1]}", one[2], named(one[3]), "counter", path)


def labels(caller, after):
    if caller in ("pool", "tier", "gauge"):
        return {"pool": "`pool`", "tier": "`pool`, `tier`", "gauge": "`stage`"}[caller]
    if caller.endswith(("IntGauge::new", "IntCounter::new", "Counter::new")):
        return ""
    until = re.split(r";\n|\n\s*\w+: ", after, maxsplit=1)[0]
    if caller.startswith(("Opts", "HistogramOpts")):
        until = after[:400]
    made = (
        re.search(r"HistogramVec::new\(duration, &\[([^\]]*)\]", after)
        if caller.startswith("Histogram")
        else None
    )
    found = made or re.search(r"&\[([^\]]*)\]", until)
    return named(found[1]) if found else ""


def named(text):
    return ", ".join(f"`{label}`" for label in re.findall(r'"(\w+)"', text))


def metric_type(name, before, caller):
    if caller.startswith("Histogram"):
        return "histogram"
    if caller in ("pool", "tier", "gauge", "family") or caller.startswith("IntGauge"):
        return "counter" if name.endswith("_total") else "gauge"
    if caller.endswith("Counter::new"):
        return "counter"
    made = re.findall(r"(GaugeVec|CounterVec|Opts::new|HistogramVec)", before[-400:] + caller)
    return "gauge" if "GaugeVec" in made and "CounterVec" not in made else "counter"


def of_gateway(path, text):
    flat = re.sub(r"\\\n\s*", "", text)
    for one in re.finditer(rf"\(\s*{STRING},\s*{STRING},\s*&counts\.", flat):
        yield Metric(f"flyweight_gateway_{one[1]}_total", one[2], "", "counter", path)
    for one in re.finditer(rf"\(\s*{STRING},\s*{STRING},\s*(?:Budget::)", flat):
        yield Metric(f"flyweight_{one[1]}", one[2], "`of`", "gauge", path)
    for one in re.finditer(r"# HELP (flyweight_[a-z_]+) ([^\\]+)\\n.*?# TYPE \1 (\w+)\\n(.{0,40})", flat):
        label = re.search(r"\{\{(\w+)=", one[4])
        yield Metric(one[1], one[2], f"`{label[1]}`" if label else "", one[3], path)
