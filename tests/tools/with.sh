#!/usr/bin/env bash
# Runs a command while real servers of its own run, and ends them.
#
# usage: with.sh mysql|mariadb|mongo|redis|kafka... -- COMMAND...
# COMMAND finds them by MYSQL_URL, MARIADB_URL, MONGODB_URI, REDIS_URL, KAFKA_BROKERS. What is set already is used as given.
# A server that cannot be had is said clearly, and its variable is not set; with CI=true that is a failure.
set -euo pipefail
TOOLS=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly TOOLS
declare -rA URL_OF=([mysql]=MYSQL_URL [mariadb]=MARIADB_URL [mongo]=MONGODB_URI [redis]=REDIS_URL [kafka]=KAFKA_BROKERS)
RUN=$(mktemp -d)
SERVERS=()

main() {
    trap finish EXIT
    trap 'exit 130' INT TERM
    local started=()
    while [[ ${1:-} != -- ]]; do
        [[ -n ${1:-} && -n ${URL_OF[$1]:-} ]] || { sed -n '4,6s/^# //p' "${BASH_SOURCE[0]}" >&2 && exit 2; }
        start "$1"
        started+=("$1")
        shift
    done
    shift
    local name
    for name in "${started[@]}"; do ready "$name"; done
    "$@"
}

declare -A PORT_OF=()

# Starts one server on a free port, unless its address was handed in or it cannot be had.
start() {
    local name=$1 variable=${URL_OF[$1]}
    if [[ -n ${!variable:-} ]]; then
        echo "$name: using $variable as given" >&2
        return
    fi
    if ! "$TOOLS/install.sh" --check "$name" >/dev/null; then
        echo "skipped: tests of $name: it is not installed here" >&2
        [[ ${CI:-} != true ]]
        return
    fi
    PORT_OF[$name]=$("$TOOLS/port.sh")
    "$TOOLS/serve.sh" "$name" "$RUN/$name" "${PORT_OF[$name]}" &
    SERVERS+=("$!")
}

# Waits until a server that was started answers.
ready() {
    local name=$1 port=${PORT_OF[$1]:-} url
    [[ -n $port ]] || return 0
    "$TOOLS/wait.sh" "$name" 127.0.0.1 "$port" 120
    url=$("$TOOLS/url.sh" "$name" 127.0.0.1 "$port")
    export "${URL_OF[$name]}=$url"
    echo "$name: port $port" >&2
}

finish() {
    local pid
    for pid in "${SERVERS[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    for pid in "${SERVERS[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf -- "$RUN"
}

main "$@"
