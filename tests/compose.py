#!/usr/bin/env python3
"""Holds compose.yaml to what Docker Compose asks of its form, and to what is here: commands, variables, files.

usage: tests/compose.py

It starts nothing. Where there is `docker compose`, that reads the file too. Without PyYAML it says so, and skips; with
CI=true that is a failure.

Exit codes: 0 all holds, 1 something does not.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))

from pyyaml import pyyaml

ROOT = Path(__file__).resolve().parent.parent
OURS = "flyweight/dataplane"
# What a service may say here, of the Compose Specification.
KEYS = set(
    """image build restart read_only tmpfs cap_drop security_opt stop_grace_period environment healthcheck command volumes
    depends_on profiles ports deploy""".split()
)
HEALTH = {"test", "interval", "timeout", "retries", "start_period"}
# Images that are pulled; a tag says which.
PULLED = "mysql mongo redis apache/kafka prom/prometheus jaegertracing/all-in-one".split()
# What is asked of each profile; None is without any.
PROFILES = {
    None: {"dataplane"},
    "full": {"dataplane", "shop", "mysql", "mongodb", "redis", "kafka", "prometheus", "jaeger"},
    "replicas": {"dataplane", "pods", "gateway", "mysql", "mongodb", "redis", "kafka"},
}
LIMITS = {"memory": "1G", "cpus": "0.5"}
# Of the operator's, and set here in its place.
ALSO = {"MEMORY_LIMIT"}


def main():
    yaml = pyyaml()
    if yaml is None:
        print("skipped: compose.yaml", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    text = (ROOT / "compose.yaml").read_text()
    faults = check(yaml.safe_load(text), text)
    for fault in faults:
        print(f"compose.yaml: {fault}", file=sys.stderr)
    return 1 if faults or not read_by_docker() else 0


def check(compose, text):
    services, faults = compose["services"], []
    unknown = {key for key in compose if not key.startswith("x-")} - {"name", "services", "volumes"}
    faults += [f"{key}: not known" for key in sorted(unknown)]
    for name, service in services.items():
        for fault in [*form(service), *files(service, compose), *order(service, services), *program(service)]:
            faults.append(f"services.{name}: {fault}")
    faults += [f"${{{found}}} has no default" for found in re.findall(r"\$\{([^}]*)\}", text) if ":-" not in found]
    named = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    faults += [f"volumes.{name}: nobody uses it" for name in sorted(set(compose["volumes"]) - named)]
    published = [port for service in services.values() for port in service.get("ports", [])]
    taken = [port.rsplit(":", 1)[0] for port in published]
    faults += [f"the port {port} is published twice" for port in sorted({p for p in taken if taken.count(p) > 1})]
    for profile, wanted in PROFILES.items():
        there = {name for name, one in services.items() if not one.get("profiles") or profile in one["profiles"]}
        if there != wanted:
            faults.append(f"profile {profile}: {', '.join(sorted(there ^ wanted))}: there and not asked for, or missing")
    for name in ("pods", "gateway"):
        if services[name].get("deploy", {}).get("resources", {}).get("limits") != LIMITS:
            faults.append(f"services.{name}: its limits are not {LIMITS}")
    if services["pods"]["deploy"].get("replicas") != 3:
        faults.append("services.pods: there are not three replicas")
    return faults + backends()


def form(service):
    yield from (f"{key}: not known" for key in sorted(set(service) - KEYS))
    image = service.get("image", "")
    name, _, tag = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", image).rpartition(":")
    if name != OURS and name not in PULLED:
        yield f"image: {image} is not one of {', '.join([OURS, *PULLED])}, with a tag"
    if tag == "latest":
        yield "image: a tag says which"
    for port in service.get("ports", []):
        if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port):
            yield f"ports: {port} is not published on this machine alone"
    health = service.get("healthcheck", {})
    yield from (f"healthcheck.{key}: not known" for key in sorted(set(health) - HEALTH))
    if health and (health["test"][0] != "CMD" or len(health["test"]) < 2):
        yield "healthcheck.test: a program, as images without a shell have one"


def files(service, compose):
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        if not target.startswith("/") or mode not in ([], ["ro"]):
            yield f"volumes: {volume} is not SOURCE:/TARGET or SOURCE:/TARGET:ro"
        if source.startswith("."):
            if not (ROOT / source).exists():
                yield f"volumes: there is no {source}"
        elif source not in compose["volumes"]:
            yield f"volumes: {source} is not declared"
    build = service.get("build")
    if build:
        stages = re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.M)
        if build.get("target") not in stages:
            yield f"build.target: Dockerfile has {', '.join(stages)}"


def order(service, services):
    for name, how in service.get("depends_on", {}).items():
        other = services.get(name)
        if other is None:
            yield f"depends_on: there is no {name}"
        elif how != {"condition": "service_healthy"} or "healthcheck" not in other:
            yield f"depends_on: {name} has no health that could be waited for"
        elif other.get("profiles") and not set(service.get("profiles", [])) <= set(other["profiles"]):
            yield f"depends_on: {name} is not there in each profile of this"


def program(service):
    """The command line and the environment of what is ours, and the health check by it."""
    if OURS not in service.get("image", ""):
        return
    words = service.get("command", [])
    source = (ROOT / "dataplane/src/args.rs").read_text().split("#[cfg(test)]")[0]
    commands = [name.lower() for name in re.findall(r"^    (\w+)\(\w+\),$", source, re.M)]
    options = {name.replace("_", "-") for name in re.findall(r"pub (\w+): ", source)}
    if words and words[0] not in commands:
        yield f"command: {words[0]} is not one of {', '.join(commands)}"
    yield from (f"command: there is no {word}" for word in words[1:] if word[:2] == "--" and word[2:] not in options)
    if service.get("healthcheck", {}).get("test", [])[1:] != ["/usr/local/bin/flyweight-dataplane", "health"]:
        yield "healthcheck: is not by flyweight-dataplane health"
    page = (ROOT / "docs/reference/environment.md").read_text().split("## Of the operator")[0]
    known = set(re.findall(r"`([A-Z_]+)`", page.split("## What the operator gives")[0]))
    said = set(service.get("environment", {}))
    yield from (f"environment: {name} is not known" for name in sorted(said - known - ALSO))
    settings = known - {"LISTEN", "PORT", "ADMIN_PORT", "K", "M", "G", "T", "KB", "MB", "GB", "TB"}
    yield from (f"environment: {name} is missing" for name in sorted(settings - said))


def backends():
    """Each backend of the samples has its address."""
    declared = re.findall(r"^    - name: (\w+)\n      \1:$", (ROOT / "configs/samples/service.yaml").read_text(), re.M)
    there = sorted(path.parent.name for path in (ROOT / "configs/compose/backends").glob("*/url"))
    return [] if sorted(declared) == there else [f"configs/compose/backends has {there}, the samples {sorted(declared)}"]


def read_by_docker():
    asked = ["docker", "compose", "--file", "compose.yaml"]
    if not shutil.which("docker") or subprocess.run([*asked[:2], "version"], capture_output=True).returncode:
        print("skipped: compose.yaml as docker compose reads it: it is not here", file=sys.stderr)
        return True
    profiles = [word for profile in PROFILES if profile for word in ("--profile", profile)]
    return subprocess.run([*asked, *profiles, "config", "--quiet"], cwd=ROOT).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
