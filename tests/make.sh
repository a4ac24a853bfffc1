#!/usr/bin/env bash
# The commands that people type without reading first are there, and those of containers say what is missing.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly TARGETS="help deps build run dev test test-race test-coverage benchmark clean fmt lint docker-build docker-run docker-up
    docker-down docker-logs load-test perf-test install-tools release bench tools"

fail() {
    echo "$*" >&2
    exit 1
}

helped=$(make --no-print-directory help)
for target in $TARGETS; do
    make --dry-run "$target" >/dev/null 2>&1 || fail "make $target is not there"
    grep -qE $'36m'"$target"$'( |\x1b)' <<<"$helped" || fail "make help says nothing of $target"
done
for target in docker-build docker-run docker-up docker-down docker-logs; do
    said=$(make --no-print-directory "$target" ENGINE= 2>&1) && fail "make $target ends well without a container engine"
    grep -q "neither docker nor podman" <<<"$said" || fail "make $target does not say what is missing: $said"
done
