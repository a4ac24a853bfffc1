#!/usr/bin/env python3
"""Shows that every promise has a test that fails without its mechanism.

usage: tests/mechanisms.py [--again | --check]

tests/mechanisms/list.toml names the mechanisms. First their tests run as the code is, and must pass. Then each
mechanism is taken out of a copy of the working tree, one at a time, and its test must fail. What was shown
before is not shown again while the entry, its file and its test stay as they are; --again shows all. --check
only holds the list against the code: nothing is built.

  ONLY="NAME NAME"       shows only these
  FLYWEIGHT_CACHE        where the copy and what is built of it are: mechanisms-tree and mechanisms-target
  MECHANISMS_TARGET      the target folder, where it is to be another

Exit codes: 0 the removal of each was caught by its test, 1 some were not, or something is wrong with the list or a test, 2 wrong use.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests/mechanisms/list.toml"
CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("FLYWEIGHT_CACHE") or CACHES / "flyweight")
TARGET = Path(os.environ.get("MECHANISMS_TARGET") or CACHE / "mechanisms-target").resolve()
TREE = TARGET.parent / "mechanisms-tree"
KNOWN = TARGET / "mechanisms.json"
# Set for the run within the servers that the tests need.
WITHIN = "MECHANISMS_WITHIN"

CAUGHT = "caught"
SURVIVED = "survived"
UNBUILT = "does not compile"

KEYS = {"name", "promise", "file", "function", "find", "replace", "kind", "test", "servers", "why"}
OPTIONAL = {"package", "seconds"}
# How long a test may take without its mechanism: some then wait for ever.
SECONDS = 180
# How long all tests of one program may take as the code is.
ALL_SECONDS = 1800


def main():
    again, check = (sys.argv[1:] == [option] for option in ("--again", "--check"))
    if sys.argv[1:] and not again and not check:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    entries = chosen(read_list())
    faults = [fault for entry in entries for fault in faults_of(entry)]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 1
    if check:
        return 0
    results = {} if again else known()
    due = [entry for entry in entries if results.get(entry["name"], {}).get("of") != digest(entry)]
    servers = sorted({server for entry in due for server in entry["servers"]})
    if servers and not os.environ.get(WITHIN):
        return within(servers)
    if due:
        with locked():
            copy_tree()
            try:
                show(due, results)
            finally:
                drop_tree()
    return report(entries, results)


def read_list():
    with LIST.open("rb") as file:
        return tomllib.load(file)["mechanism"]


def chosen(entries):
    wanted = os.environ.get("ONLY", "").split()
    unknown = set(wanted) - {entry.get("name") for entry in entries}
    if unknown:
        sys.exit(f"there is no mechanism {', '.join(sorted(unknown))}")
    return [entry for entry in entries if not wanted or entry["name"] in wanted]


def faults_of(entry):
    """What is wrong with an entry, before anything is built."""
    name = entry.get("name", "an entry without a name")
    keys = set(entry)
    if not KEYS <= keys <= KEYS | OPTIONAL:
        yield f"{name}: its keys must be {', '.join(sorted(KEYS))}, and may be {', '.join(sorted(OPTIONAL))}"
        return
    file = ROOT / entry["file"]
    text = file.read_text() if file.is_file() else ""
    count = text.count(entry["find"])
    if count != 1:
        yield f"{name}: what it looks for occurs {count} times in {entry['file']}"
    if not re.search(rf"\b(fn|const|static) {re.escape(entry['function'])}\b", text):
        yield f"{name}: there is no {entry['function']} in {entry['file']}"
    test = entry["test"].split("::")
    if not any(re.search(rf"\b(fn|mod|suite!\() ?{re.escape(test[-1])}", text) for text in sources()):
        yield f"{name}: there is no test {entry['test']}"
    if entry["kind"] not in ("lib", "suites") or ("package" in entry) != (entry["kind"] == "lib"):
        yield f"{name}: its kind must be lib, with the package of its test, or suites"


def digest(entry):
    """Stays as long as the entry, its file, and the files with its test do."""
    parts = [json.dumps(entry, sort_keys=True), (ROOT / entry["file"]).read_text()]
    test = f"fn {entry['test'].split('::')[-1]}("
    parts += [text for text in sources() if test in text]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@functools.cache
def sources():
    crates = sorted(manifest.parent for manifest in ROOT.glob("*/Cargo.toml"))
    return [path.read_text() for crate in crates for path in sorted(crate.rglob("*.rs"))]


def known():
    try:
        return json.loads(KNOWN.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def within(servers):
    """Runs this again while the servers run, which are installed where they are missing."""
    tools = ROOT / "tests/tools"
    subprocess.run([tools / "install.sh", *sorted({server.removesuffix("-odd") for server in servers})], check=True)
    environment = {**os.environ, WITHIN: "1", "FLYWEIGHT_REQUIRE_SERVERS": "1"}
    command = [tools / "with.sh", *servers, "--", sys.executable, __file__, *sys.argv[1:]]
    return subprocess.run(command, env=environment, check=False).returncode


def locked():
    TARGET.mkdir(parents=True, exist_ok=True)
    lock = (TARGET / "mechanisms.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another run is at work")
    return lock


def git(*args):
    return subprocess.run(["git", "-C", ROOT, *args], check=True, capture_output=True, text=True).stdout


def copy_tree():
    """The last commit, and over it what was changed since."""
    drop_tree()
    git("worktree", "add", "--quiet", "--force", "--detach", TREE, "HEAD")
    for path in git("ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0"):
        if path and (ROOT / path).is_file():
            (TREE / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, TREE / path)
    for path in git("ls-files", "-z", "--deleted").split("\0"):
        if path:
            (TREE / path).unlink(missing_ok=True)


def drop_tree():
    with contextlib.suppress(subprocess.CalledProcessError):
        git("worktree", "remove", "--force", TREE)
    shutil.rmtree(TREE, ignore_errors=True)


def show(due, results):
    print(f"{len(due)} mechanisms to show; first their tests as the code is", flush=True)
    sound = set()
    for program in sorted({program_of(entry) for entry in due}):
        its = [entry for entry in due if program_of(entry) == program]
        outcomes = as_it_is(program, its)
        for entry in its:
            wrong = wrong_with(entry, outcomes)
            if wrong:
                results[entry["name"]] = {"outcome": wrong}
                print(f"{entry['name']}: {wrong}", flush=True)
            else:
                sound.add(entry["name"])
    due = [entry for entry in due if entry["name"] in sound]
    width = max((len(entry["name"]) for entry in due), default=0)
    for place, entry in enumerate(due, 1):
        begun = time.monotonic()
        outcome, how = without(entry)
        results[entry["name"]] = {"outcome": outcome, "how": how, "of": digest(entry)}
        keep(results)
        took = time.monotonic() - begun
        print(f"{place:3}/{len(due)} {entry['name']:{width}} {outcome}: {how} ({took:.0f} s)", flush=True)


def program_of(entry):
    """The arguments by which cargo builds and runs the test's program."""
    if entry["kind"] == "suites":
        return ("--package", "flyweight-tests", "--test", "suites")
    package = entry["package"]
    return ("--package", package, *(("--bin", package) if package == "flyweight-operator" else ("--lib",)))


def as_it_is(program, entries):
    """What became of each test that the filters of some entries match."""
    print(f"  cargo test {' '.join(program)}", flush=True)
    built, text = build(program)
    if not built:
        sys.exit(f"the code does not compile as it is:\n{text[-4000:]}")
    ended, text = run(program, [entry["test"] for entry in entries], ALL_SECONDS)
    if not ended:
        print(text[-4000:], flush=True)
    return outcomes_in(text)


def wrong_with(entry, outcomes):
    """Why an entry's test cannot show anything."""
    own = {name: outcome for name, outcome in outcomes.items() if entry["test"] in name}
    if not own:
        return f"there is no test {entry['test']}"
    failed = [name for name, outcome in own.items() if outcome != "ok"]
    return f"its test fails as the code is: {', '.join(failed)}" if failed else None


def without(entry):
    """Takes a mechanism out, and says whether its test catches that, and how."""
    file = TREE / entry["file"]
    whole = file.read_text()
    try:
        file.write_text(whole.replace(entry["find"], entry["replace"]))
        program = program_of(entry)
        built, text = build(program)
        if not built:
            errors = [line for line in text.splitlines() if line.startswith("error")]
            return UNBUILT, errors[0] if errors else text[-400:]
        ended, text = run(program, [entry["test"]], entry.get("seconds", SECONDS))
    finally:
        file.write_text(whole)
    outcomes = outcomes_in(text)
    failed = [name for name, outcome in outcomes.items() if outcome == "FAILED"]
    if failed:
        return CAUGHT, f"{failed[0]} failed"
    if not ended:
        return CAUGHT, f"{entry['test']} came to no end"
    if "test result: ok" in text:
        return SURVIVED, f"{entry['test']} passed"
    return CAUGHT, f"{entry['test']} was torn down"


def build(program):
    """Builds a test's program, and what it starts. Says whether that went well, and what was printed."""
    steps = [["cargo", "test", *program, "--no-run"]]
    if "suites" in program:
        steps.insert(0, ["cargo", "build", "--package", "flyweight-dataplane", "--bin", "flyweight-dataplane"])
    text = ""
    for step in steps:
        done, code, printed = command(step, None)
        text += printed
        if not done or code != 0:
            return False, text
    return True, text


def run(program, filters, seconds):
    """Runs some tests of a program that is built. Says whether they came to an end, and what was printed."""
    # a line has its test's outcome only where several run at a time
    threads = 2 if "suites" in program else max(2, os.cpu_count() or 2)
    args = ["cargo", "test", *program, "--", *sorted(set(filters)), f"--test-threads={threads}"]
    done, _, text = command(args, seconds)
    return done, text


def command(args, seconds):
    """Runs a command in the copy. Whatever it started ends with it."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "CARGO_TERM_COLOR": "never"}
    environment["FLYWEIGHT_BIN_DIR"] = str(TARGET / "debug")
    # into files: what is left behind would keep a pipe open
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(args, cwd=TREE, env=environment, stdout=out, stderr=errors, start_new_session=True)
        code = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            # no code says that
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        text = ""
        for file in (errors, out):
            file.seek(0)
            text += file.read().decode(errors="replace")
        return code is not None, code, text


def outcomes_in(text):
    return dict(re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", text, re.MULTILINE))


def keep(results):
    KNOWN.write_text(json.dumps(results, indent=1, sort_keys=True))


def report(entries, results):
    wrong = [(entry, results[entry["name"]]) for entry in entries if results[entry["name"]]["outcome"] != CAUGHT]
    print(f"{len(entries) - len(wrong)} of {len(entries)} removals were caught")
    for entry, result in wrong:
        print(f"{entry['name']} ({entry['file']}, {entry['function']}): {result['outcome']}: {entry['why']}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
