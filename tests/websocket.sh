#!/usr/bin/env bash
# Runs the Autobahn suite against the WebSocket, of a pod and through a gateway. docs/reference/websocket.md says what may not be as the suite likes it, and why.
# The suite expects an echo: all of it runs against an echo in the place of the feed, and against the feed whatever needs no echo.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. tests/tools/edge.sh

readonly ALLOWED=docs/reference/websocket.md
# pings, reserved bits, opcodes, fragments, invalid UTF-8 and closing handshakes
readonly WITHOUT_ECHO=(2.\* 3.1 3.5 3.6 3.7 4.1.1 4.1.2 4.2.1 4.2.2 5.1 5.2 5.9 5.10 5.11 5.12 5.13 5.14 5.16 5.17 5.18
    6.3.\* 6.4.\* 6.6.1 6.6.3 6.6.4 6.6.6 6.6.8 6.6.10 6.8.\* 6.10.\* 6.11.5 6.12.\* 6.13.\* 6.14.\* 6.15.\* 6.16.\* 6.17.\*
    6.18.\* 6.19.\* 6.20.\* 6.21.\* 7.1.2 7.1.3 7.1.4 7.1.5 7.1.6 7.3.\* 7.5.\* 7.7.\* 7.9.\* 7.13.\*)

main() {
    tests/tools/install.sh autobahn
    local echo_port
    start_pod feed configs/samples
    start_gateway feed configs/samples "$POD"
    fuzz feed "${WITHOUT_ECHO[*]}" "pod" "$POD/ws?topics=product" "gateway" "$GATEWAY/ws?topics=product"
    echo_port=$(free_port)
    serve_edge echo "$echo_port" "$BIN/websocket-echo" "$echo_port"
    start_gateway echo configs/samples "$echo_port"
    fuzz echo '*' "echo" "$echo_port/ws" "echo through the gateway" "$GATEWAY/ws"
    ok "WebSockets are as RFC 6455 has it, but for what $ALLOWED says"
}

# Runs cases against servers one after the other: fuzz NAME "CASE..." SERVER PORT/PATH...
fuzz() {
    local name=$1 cases servers=''
    cases=$(quoted $2)
    shift 2
    while (($#)); do
        servers+=${servers:+, }"{ \"agent\": \"$1\", \"url\": \"ws://127.0.0.1:$2\" }"
        shift 2
    done
    step "Autobahn: $name"
    printf '{ "outdir": "%s", "servers": [%s], "cases": [%s], "exclude-cases": [], "exclude-agent-cases": {} }' \
        "$RUN/$name-report" "$servers" "$cases" >"$RUN/$name.json"
    "$(tool_dir autobahn)/wstest" --mode fuzzingclient --spec "$RUN/$name.json" >"$RUN/$name.out" 2>&1 ||
        die "Autobahn did not run: $(tail -n 20 "$RUN/$name.out")"
    allowed_in "$ALLOWED" | python3 tests/tools/autobahn.py "$RUN/$name-report" >&2 ||
        die "$name: some cases are neither as they should be nor in $ALLOWED"
}

# Words as a list of JSON: quoted WORD...
quoted() {
    local list
    list=$(printf '"%s", ' "$@")
    echo "${list%, }"
}

set -f # the names of groups of cases are no files
main
