#!/usr/bin/env bash
# Makes load with wrk and says what the API bore: reads, pages, writes, and a mix of 95 reads and 5 writes of 100; then
# sends events of price and stock, one a request, and waits until they are applied.
# usage: tests/load/run.sh [URL]     without URL a release build serves the samples with embedded stores for the time of the test
# SECONDS_EACH (10), CONNECTIONS (32), THREADS (2), PRODUCTS (500), EVENTS (1000); MIXES="read write" for some mixes, or none
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."

URL=${1:-}
readonly EACH=${SECONDS_EACH:-10} CONNECTIONS=${CONNECTIONS:-32} THREADS=${THREADS:-2} EVENTS=${EVENTS:-1000} MIXES=${MIXES-read page write mixed}
export PRODUCTS=${PRODUCTS:-500}
RUN=$(mktemp -d)
SERVER=

main() {
    trap finish EXIT
    [[ -z $MIXES ]] || tests/tools/install.sh bench
    [[ -n $URL ]] || serve
    fill
    [[ -z $MIXES ]] || mixes
    events
}

mixes() {
    cat <<TEXT

$URL: $CONNECTIONS connections, $EACH s each, $PRODUCTS products, $(nproc) cores that the server shares with wrk
read: a product by its key    page: 20 products at some offset    write: the stock of a product    mixed: 95 reads and 5 writes of 100

TEXT
    printf '%-8s%12s%10s%10s%10s%10s%10s%12s%9s\n' mix requests/s 'p50 ms' 'p90 ms' 'p99 ms' 'p99.9 ms' 'max ms' requests failed
    local mix
    for mix in $MIXES; do
        MIX=$mix wrk --threads "$THREADS" --connections "$CONNECTIONS" --duration "${EACH}s" --timeout 10s \
            --script tests/load/mix.lua "$URL" >"$RUN/wrk"
        grep -E "^$mix  " "$RUN/wrk"
    done
    echo
}

# The sample shop on free ports, until this ends.
serve() {
    cargo build --quiet --workspace --release --bin flyweight-dataplane
    "${CARGO_TARGET_DIR:-target}/release/flyweight-dataplane" serve --manifests configs/samples --data-dir "$RUN/data" \
        --port 0 --admin-port 0 --drain-delay 0s --log-format json >/dev/null 2>"$RUN/log" &
    SERVER=$!
    local port
    for _ in $(seq 300); do
        port=$(sed -nE 's/.*"addr":"[^"]*:([0-9]+)".*/\1/p' "$RUN/log" | head -n 1)
        [[ -z $port ]] || break
        sleep 0.1
    done
    [[ -n $port ]] || { cat "$RUN/log" >&2 && exit 1; }
    URL=http://127.0.0.1:$port
}

# Products to read and to change; those that are there already stay.
fill() {
    local n description
    description=$(printf 'Made of oak and brass. %.0s' {1..20})
    for n in $(seq "$PRODUCTS"); do
        ((n == 1)) || echo next
        printf 'url = "%s/api/v1/products"\nheader = "content-type: application/json"\noutput = /dev/null\n' "$URL"
        printf 'data = "{\\"id\\":\\"load-%d\\",\\"name\\":\\"Lamp %d\\",\\"price\\":\\"19.90\\",\\"description\\":\\"%s\\"}"\n' "$n" "$n" "$description"
    done >"$RUN/fill"
    curl --silent --show-error --config "$RUN/fill"
    curl --silent --show-error --fail --output /dev/null "$URL/api/v1/products/load-$PRODUCTS" ||
        { echo "the products cannot be made at $URL" >&2 && exit 1; }
}

# One request for each event, to POST /api/v1/events; accepted means durable. The last one's product shows that all are applied.
events() {
    local n start accepted took deadline
    for n in $(seq "$EVENTS"); do
        ((n == 1)) || echo next
        printf 'url = "%s/api/v1/events"\nheader = "content-type: application/json"\noutput = /dev/null\nwrite-out = "%%{http_code}\\n"\n' "$URL"
        printf 'data = "{\\"product_id\\":\\"load-event-%d\\",\\"price\\":49.99,\\"stock\\":%d}"\n' "$n" "$n"
    done >"$RUN/events"
    start=$EPOCHREALTIME
    accepted=$(curl --silent --show-error --config "$RUN/events" | grep -c '^202$' || true)
    took=$(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 1000))
    echo "events: $accepted of $EVENTS accepted, one a request on one connection, in $took ms"
    deadline=$((SECONDS + 30))
    until curl --silent --fail --output /dev/null "$URL/api/v1/products/load-event-$EVENTS"; do
        ((SECONDS < deadline)) || { echo "the last event was not applied within 30 s" >&2 && exit 1; }
        sleep 0.1
    done
    echo "events: the last one is applied $(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 1000)) ms after the first was sent"
    [[ $accepted == "$EVENTS" ]] || exit 1
}

finish() {
    [[ -z $SERVER ]] || kill "$SERVER" 2>/dev/null || true
    rm -rf -- "$RUN"
}

main
