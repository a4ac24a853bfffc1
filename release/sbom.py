#!/usr/bin/env python3
"""Prints what the programs are made of, as CycloneDX 1.5: each crate that is linked into them, or that builds them.

Crates that only tests and other systems use are left out, as `cargo metadata` tells.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("flyweight-dataplane", "flyweight-operator")


def main():
    told = run("cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", host())
    told = json.loads(told)
    packages = {package["id"]: package for package in told["packages"]}
    nodes = {node["id"]: node for node in told["resolve"]["nodes"]}
    roots = [package["id"] for package in told["packages"] if package["name"] in PROGRAMS]
    linked, uses = set(roots), {}
    open_ends = list(roots)
    while open_ends:
        one = open_ends.pop()
        linked_by = [
            dep["pkg"] for dep in nodes[one]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])
        ]
        uses[one] = linked_by
        open_ends += [other for other in linked_by if other not in linked]
        linked |= set(linked_by)
    sums = checksums()
    version = packages[roots[0]]["version"]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "flyweight", "name": "flyweight", "version": version}},
        "components": [component(packages[one], sums) for one in sorted(linked, key=lambda one: purl(packages[one]))],
        "dependencies": [
            {"ref": purl(packages[one]), "dependsOn": sorted({purl(packages[other]) for other in uses[one]})}
            for one in sorted(linked, key=lambda one: purl(packages[one]))
        ],
    }
    json.dump(document, sys.stdout, indent=1)
    print()


def component(package, sums):
    found = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    }
    if package.get("license"):
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    digest = sums.get((package["name"], package["version"]))
    if digest:
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return found


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def checksums():
    text = (ROOT / "Cargo.lock").read_text()
    blocks = re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"\n(?:source = [^\n]*\n)?checksum = "(\w+)"', text)
    return {(name, version): digest for name, version, digest in blocks}


def host():
    return re.search(r"^host: (\S+)$", run("rustc", "-vV"), re.M)[1]


def run(*args):
    return subprocess.run(args, cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
