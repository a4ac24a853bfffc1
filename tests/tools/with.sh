#!/usr/bin/env bash
# Runs a command while real servers of its own run, and ends them.
#
# usage: with.sh mysql|mariadb|mongo|redis|kafka|mysql-odd|mariadb-odd... -- COMMAND...
# COMMAND finds them by MYSQL_URL, MARIADB_URL, MONGODB_URI, REDIS_URL, KAFKA_BROKERS, MYSQL_ODD_URL, MARIADB_ODD_URL. What is set already is used
# as given. The odd ones are set as other people set theirs: not strict, ANSI, another time zone, isolation and character set, no autocommit.
# A server that cannot be had is said clearly, and its variable is not set; with CI=true that is a failure.
set -euo pipefail
TOOLS=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly TOOLS
declare -rA URL_OF=([mysql]=MYSQL_URL [mariadb]=MARIADB_URL [mongo]=MONGODB_URI [redis]=REDIS_URL [kafka]=KAFKA_BROKERS
    [mysql-odd]=MYSQL_ODD_URL [mariadb-odd]=MARIADB_ODD_URL)
readonly ODD='--default-time-zone=+05:30 --autocommit=0 --completion-type=CHAIN --max-allowed-packet=1M --character-set-server=latin1
    --div-precision-increment=1 --group-concat-max-len=4'
declare -rA OPTS_OF=([mysql-odd]="$ODD --sql-mode= --transaction-isolation=SERIALIZABLE"
    [mariadb-odd]="$ODD --sql-mode=ANSI,PAD_CHAR_TO_FULL_LENGTH,NO_BACKSLASH_ESCAPES --transaction-isolation=READ-UNCOMMITTED
    --lower-case-table-names=1 --explicit-defaults-for-timestamp=OFF")
RUN=$(mktemp -d)
SERVERS=()

main() {
    trap finish EXIT
    trap 'exit 130' INT TERM
    local started=()
    while [[ ${1:-} != -- ]]; do
        [[ -n ${1:-} && -n ${URL_OF[$1]:-} ]] || { sed -n '4,7s/^# //p' "${BASH_SOURCE[0]}" >&2 && exit 2; }
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
    local name=$1 variable=${URL_OF[$1]} tool=${1%-odd}
    if [[ -n ${!variable:-} ]]; then
        echo "$name: using $variable as given" >&2
        return
    fi
    if ! "$TOOLS/install.sh" --check "$tool" >/dev/null; then
        echo "skipped: tests of $name: it is not installed here" >&2
        [[ ${CI:-} != true ]]
        return
    fi
    PORT_OF[$name]=$("$TOOLS/port.sh")
    MYSQL_OPTS=${OPTS_OF[$1]:-${MYSQL_OPTS:-}} "$TOOLS/serve.sh" "$tool" "$RUN/$name" "${PORT_OF[$name]}" &
    SERVERS+=("$!")
}

# Waits until a server that was started answers.
ready() {
    local name=$1 port=${PORT_OF[$1]:-} tool=${1%-odd} url
    [[ -n $port ]] || return 0
    "$TOOLS/wait.sh" "$tool" 127.0.0.1 "$port" 120
    url=$("$TOOLS/url.sh" "$tool" 127.0.0.1 "$port")
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
