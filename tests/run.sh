#!/usr/bin/env bash
# Runs every test: installs the real servers that are missing, starts the ones that tests need, and ends them.
#
# A server that cannot be had is said clearly, and its tests are skipped; with CI=true that is a failure.
# Servers can be handed in: MYSQL_URL, MARIADB_URL, MONGODB_URI, REDIS_URL, KAFKA_BROKERS, KUBECONFIG.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly CACHE=${FLYWEIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flyweight}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

main() {
    [[ ${CI:-} != true ]] || export FLYWEIGHT_REQUIRE_SERVERS=1
    step "building"
    cargo build --workspace --all-targets
    step "installing the servers that are missing"
    local status=0
    tests/tools/install.sh all || status=$?
    if ((status)); then
        ((status == 3)) && [[ ${CI:-} != true ]] || exit "$status"
    fi
    step "unit tests, with real servers"
    tests/tools/with.sh mysql mariadb mysql-odd mariadb-odd mongo redis kafka -- cargo test --workspace --lib --bins
    cargo test --package flyweight-engine --doc
    cargo test --workspace --test configs --test definitions --test manifest --test resolve
    step "make run, as a newcomer"
    tests/quickstart.sh
    step "dashboard"
    dashboard
    step "chart"
    tests/chart.sh
    tests/deploy.sh
    step "suites: the data plane as a process, real servers, faults"
    cargo test --workspace --test suites -- --test-threads=2
    step "the local cluster"
    on_cluster tests/cluster.sh
    step "the operator on a real API server: crashes, faults, random changes, every field"
    on_cluster tests/operator.sh
    step "end to end: the whole system on a real Kubernetes"
    on_cluster tests/demo.sh run
    step "an added entity"
    tests/coupon.sh
    step "all tests passed"
}

step() { printf '\n\033[1m== %s\033[0m\n' "$1" >&2; }

# The committed pages are what their sources build.
dashboard() {
    if ! command -v npm >/dev/null; then
        echo "skipped: the dashboard's sources: there is no npm" >&2
        [[ ${CI:-} != true ]]
        return
    fi
    (cd dashboard && npm ci --silent && npm run --silent check)
}

on_cluster() {
    if [[ $EUID -ne 0 ]] || ! tests/tools/install.sh --check kubernetes >/dev/null; then
        echo "skipped: $1: it needs root, and tests/tools/install.sh kubernetes" >&2
        [[ ${CI:-} != true ]]
        return
    fi
    "$@"
}

main "$@"
