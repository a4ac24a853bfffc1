#!/usr/bin/env bash
# Shows with the tokens of a real Keycloak who is let in and who is not: `make prove-keycloak`.
# Needs Java 17, Maven and Python.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. tests/tools/lib.sh

BIN=${FLYWEIGHT_BIN_DIR:-${CARGO_TARGET_DIR:-$CACHE/target}/debug}
readonly BIN

have python3 || die "python3 is needed"
tests/tools/install.sh keycloak
exec python3 tests/keycloak/prove.py "$(tool_dir keycloak)" "$BIN/flyweight-dataplane"
