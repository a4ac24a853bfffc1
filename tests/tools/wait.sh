#!/usr/bin/env bash
# Waits until a server answers a request of its own protocol, not merely until its port is open.
#
# The requests are a few bytes written here, so no client program is needed. MySQL greets whoever connects, and
# only once it serves; all others are asked.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

usage='usage: wait.sh mysql|mariadb|redis|kafka|mongo HOST PORT [SECONDS]'

main() {
    [[ ${1:-} != -h && ${1:-} != --help ]] || { echo "$usage" && exit 0; }
    [[ $# -ge 3 && $# -le 4 ]] || { echo "$usage" >&2 && exit "$EXIT_USAGE"; }
    case $1 in
        mysql | mariadb | redis | kafka | mongo) ;;
        *) usage_error "unknown server: $1" ;;
    esac
    export -f "answers_$1" head_hex
    local seconds=${4:-60}
    # each try in a process of its own with a limit: a stopped server accepts and says nothing
    wait_until "$seconds" timeout 2 bash -c "answers_$1 \"\$@\" 2>/dev/null" _ "$2" "$3" ||
        die "$1 at $2:$3 did not answer within $seconds s"
}

# the first N bytes of an answer as hexadecimal digits: head_hex N
head_hex() { head -c "$1" <&9 | od -An -v -tx1 | tr -d ' \n'; }

# The greeting: three bytes of length, a sequence number of 0, then protocol version 10 (an error has ff there).
answers_mysql() {
    exec 9<>"/dev/tcp/$1/$2"
    [[ $(head_hex 5) == ??????000a ]]
}

answers_mariadb() {
    exec 9<>"/dev/tcp/$1/$2"
    [[ $(head_hex 5) == ??????000a ]]
}

# A server that wants a password says so with -NOAUTH, and serves; one that still loads says -LOADING.
answers_redis() {
    exec 9<>"/dev/tcp/$1/$2"
    printf 'PING\r\n' >&9
    local answer
    read -r answer <&9
    [[ $answer == +PONG* || $answer == -NOAUTH* ]]
}

# Metadata, version 1, no topics. Correlation id 7 comes back, then the number of brokers: one, once it is registered.
answers_kafka() {
    exec 9<>"/dev/tcp/$1/$2"
    printf '\0\0\0\x16\0\x03\0\x01\0\0\0\x07\0\x08wait-til\0\0\0\0' >&9
    [[ $(head_hex 12) == ????????0000000700000001 ]]
}

# OP_MSG {ping: 1, $db: "admin"}; the answer is an OP_MSG (2013) too.
answers_mongo() {
    exec 9<>"/dev/tcp/$1/$2"
    # shellcheck disable=SC2016  # the dollar is part of the request
    printf '\x33\0\0\0\x07\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x1e\0\0\0\x10ping\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0' >&9
    [[ $(head_hex 16) == ????????????????07000000dd070000 ]]
}

main "$@"
