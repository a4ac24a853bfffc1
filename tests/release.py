#!/usr/bin/env python3
"""Holds the release to what is here: the workflow names what exists, and pushes for tags alone; templates are filled.

usage: tests/release.py

It runs no workflow and builds no program. Without PyYAML it says so, and skips the workflow; with CI=true that is a
failure.

Exit codes: 0 all holds, 1 something does not.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))

from pyyaml import pyyaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ".github/workflows/release.yaml"
# What leaves the machine of a workflow, but for its own artifacts.
LEAVES = r"cosign sign|helm push|gh release create|login|attest-build-provenance"
TAGS = "startsWith(github.ref, 'refs/tags/')"


def main():
    faults = [*workflow(), *filled(), *sbom()]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def workflow():
    yaml = pyyaml()
    if yaml is None:
        print(f"skipped: {WORKFLOW}", file=sys.stderr)
        return [f"{WORKFLOW}: not read"] if os.environ.get("CI") == "true" else []
    read = yaml.safe_load((ROOT / WORKFLOW).read_text())
    faults = []
    for name, job in read["jobs"].items():
        faults += [f"{name}: it needs {other}, which is not there" for other in needs(job) if other not in read["jobs"]]
        if "timeout-minutes" not in job:
            faults.append(f"{name}: it has no deadline")
        for step in job["steps"]:
            told = f"{name}: {step.get('name') or step.get('uses') or step.get('run')}"
            faults += [f"{told}: {fault}" for fault in faults_of(step)]
    return [f"{WORKFLOW}: {fault}" for fault in faults]


def needs(job):
    found = job.get("needs", [])
    return [found] if isinstance(found, str) else found


def faults_of(step):
    run, uses = step.get("run", ""), step.get("uses", "")
    if re.search(LEAVES, run + uses) and step.get("if") != TAGS:
        yield "it leaves the machine, and not for tags alone"
    if "build-push-action" in uses and step["with"].get("push") != "${{ " + TAGS + " }}":
        yield "it pushes, and not for tags alone"
    if uses and not re.fullmatch(r"[\w-]+/[\w-]+@v\d+", uses):
        yield "it has no version"
    for script in re.findall(r"(?:release|tests)/[\w/]+\.(?:sh|py)", run):
        if not os.access(ROOT / script, os.X_OK):
            yield f"{script} is not there, or cannot be run"
    parts = set(re.findall(r"^(\w+)\(\) \{", (ROOT / "release/build.sh").read_text(), re.M))
    for words in re.findall(r"release/build\.sh((?: \w+)*)", run):
        yield from (f"release/build.sh has no {word}" for word in words.split() if word not in parts)


def filled():
    """The templates, with the checksum of an archive that is there and zeros for one that is not."""
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    with tempfile.TemporaryDirectory() as folder:
        archives = [f"{name}-{version}-linux-amd64.tar.gz" for name in ("flyweight", "kubectl-flyweight")]
        for archive in archives:
            (Path(folder) / archive).write_text(archive)
        env = {**os.environ, "OUT": folder, "RELEASE_URL": "https://example.com/v"}
        done = subprocess.run(["release/build.sh", "index"], cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode:
            return [f"release/build.sh index: {done.stderr}"]
        faults = []
        for archive, file in zip(archives, ("flyweight.rb", "krew-flyweight.yaml")):
            text = (Path(folder) / file).read_text()
            for wanted in (hashlib.sha256(archive.encode()).hexdigest(), "0" * 64, f"https://example.com/v/{archive}"):
                if wanted not in text:
                    faults.append(f"{file}: it does not have {wanted}")
            faults += [f"{file}: {left} is not filled in" for left in re.findall(r"@[A-Z0-9]+[@:]", text)]
        sums = (Path(folder) / "SHA256SUMS").read_text()
        faults += [f"SHA256SUMS: {name} is missing" for name in (*archives, "flyweight.rb") if f"  {name}\n" not in sums]
        return faults


def sbom():
    done = subprocess.run(["release/sbom.py"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return [f"release/sbom.py: {done.stderr}"]
    told = json.loads(done.stdout)
    names = {component["name"] for component in told["components"]}
    references = {component["bom-ref"] for component in told["components"]}
    faults = [f"release/sbom.py: {name} is missing" for name in ("hyper", "kube", "openssl-sys") if name not in names]
    faults += [f"release/sbom.py: {name} is linked by tests alone" for name in ("flyweight-testing", "flyweight-tests") if name in names]
    used = {other for one in told["dependencies"] for other in one["dependsOn"]}
    return faults + [f"release/sbom.py: {one} is used and not listed" for one in sorted(used - references)]


if __name__ == "__main__":
    sys.exit(main())
