#!/usr/bin/env bash
# What the README and the tutorials say of `make run`, done as a newcomer does it: run it, try the lines that
# it prints, kill it, run it again, then the commands of the tutorials as they stand there.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

RUN=$(mktemp -d)
PORT=$(tests/tools/port.sh)
ADMIN_PORT=$(tests/tools/port.sh)
readonly RUN PORT ADMIN_PORT DEADLINE=600
SERVER=

main() {
    trap finish EXIT
    start DATA="$RUN/data"
    local lines
    mapfile -t lines < <(sed -n 's/^ *\(curl .*\)$/\1/p' "$RUN/out")
    ((${#lines[@]} == 3)) || fail "make run printed ${#lines[@]} lines to try, not 3"
    expect "${lines[0]}" 'HTTP/1.1 201' 'etag: "1"' 'location: /api/v1/products/lamp'
    expect "${lines[1]}" 'HTTP/1.1 200' 'etag: "1"' 'flyweight-explain: tier='
    expect "${lines[2]}" 'HTTP/1.1 304'
    expect "curl -i -X DELETE localhost:$PORT/api/v1/products/lamp -H 'if-match: \"7\"'" 'HTTP/1.1 412'
    stop
    start DATA="$RUN/data"
    expect "${lines[1]}" 'HTTP/1.1 200' 'etag: "1"'
    echo " ok make run: ready, answers as it says, and keeps what it answered through kill -9"
    tests/docs.py --run docs/tutorials/first-service.md "http://localhost:$PORT"
    tests/docs.py --run docs/tutorials/orders.md "http://localhost:$PORT"
    stop
    tests/docs.py --files docs/tutorials/your-own-table.md "$RUN/books"
    make --no-print-directory check MANIFESTS="$RUN/books"
    start MANIFESTS="$RUN/books" DATA="$RUN/books-data"
    tests/docs.py --run docs/tutorials/your-own-table.md "http://localhost:$PORT"
}

# Runs `make run` with these variables in a process group of its own and waits until it says where it is.
start() {
    : >"$RUN/out"
    setsid make --no-print-directory run PORT="$PORT" ADMIN_PORT="$ADMIN_PORT" "$@" >"$RUN/out" 2>"$RUN/err" &
    SERVER=$!
    local waited=0
    until grep -q "served at http://localhost:$PORT" "$RUN/out"; do
        kill -0 "$SERVER" 2>/dev/null || fail "make run ended"
        ((waited++ < DEADLINE * 10)) || fail "make run was not ready within $DEADLINE s"
        read -rt 0.1 <> <(:) || true # a tenth of a second
    done
}

# Ends it as a crash would.
stop() {
    kill -KILL -- "-$SERVER"
    { wait "$SERVER"; } 2>/dev/null || true
    SERVER=
}

# Runs a line and looks for texts in the answer, whatever their case.
expect() {
    local answer text
    answer=$(bash -c "${1/curl /curl --silent --show-error --max-time 10 }")
    for text in "${@:2}"; do
        grep -qiF -- "$text" <<<"$answer" || fail "$1: no \"$text\" in: $answer"
    done
}

fail() {
    printf '\033[31mfailed:\033[0m %s\n' "$1" >&2
    tail -n 20 "$RUN/err" >&2
    exit 1
}

finish() {
    [[ -z $SERVER ]] || kill -KILL -- "-$SERVER" 2>/dev/null || true
    rm -rf -- "$RUN"
}

main "$@"
