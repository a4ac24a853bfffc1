# A pod and a gateway before it, as processes with embedded stores, for what is proven at the edge. Sourced, never run.
# shellcheck shell=bash
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

BIN=${FLYWEIGHT_BIN_DIR:-${CARGO_TARGET_DIR:-$CACHE/target}/debug}
RUN=$(mktemp -d)
SERVERS=()
readonly BIN RUN
trap end_servers EXIT

end_servers() {
    ((${#SERVERS[@]} == 0)) || kill -KILL "${SERVERS[@]}" 2>/dev/null || true
    rm -rf -- "$RUN"
}

free_port() { "$TOOLS_DIR/port.sh"; }

# Starts a server and waits until it is ready: serve_edge NAME ADMIN_PORT PROGRAM ARGUMENT...
serve_edge() {
    local name=$1 admin=$2
    shift 2
    "$@" >"$RUN/$name.log" 2>&1 &
    SERVERS+=($!)
    disown # its end is not news
    wait_until 60 curl --silent --fail --output /dev/null "http://127.0.0.1:$admin/readyz" ||
        die "$name is not ready: $(tail -n 20 "$RUN/$name.log")"
}

# Sets POD to the port of a new pod: start_pod NAME MANIFESTS [ARGUMENT...]
start_pod() {
    local name=$1 manifests=$2 admin
    shift 2
    POD=$(free_port) && admin=$(free_port)
    serve_edge "$name-pod" "$admin" "$BIN/flyweight-dataplane" serve --manifests "$manifests" --data-dir "$RUN/$name" \
        --port "$POD" --admin-port "$admin" --drain-delay 0s "$@"
}

# Sets GATEWAY to the port of a new gateway: start_gateway NAME MANIFESTS POD_PORT [ARGUMENT...]
start_gateway() {
    local name=$1 manifests=$2 pod=$3 admin
    shift 3
    GATEWAY=$(free_port) && admin=$(free_port)
    serve_edge "$name-gateway" "$admin" "$BIN/flyweight-dataplane" gateway --manifests "$manifests" \
        --upstream "main=127.0.0.1:$pod" --port "$GATEWAY" --admin-port "$admin" "$@"
}

# The samples over TLS in $RUN/samples, and in $RUN/security a certificate for localhost.
make_tls() {
    local keys=$RUN/security/tls
    mkdir -p "$keys" "$RUN/security/encryption" "$RUN/samples"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout "$keys/tls.key" -out "$keys/tls.crt" 2>/dev/null
    cp -- "$keys/tls.crt" "$keys/ca.crt"
    head -c 32 /dev/urandom | base64 >"$RUN/security/encryption/key"
    cp -- configs/samples/*.yaml "$RUN/samples"
    sed -i '0,/^spec:$/s//spec:\n  security: { tls: { secretRef: { name: shop-tls } } }/' "$RUN/samples/service.yaml"
}

# The rows of a table of failures that are allowed, NAME|WHERE|WHEN each: allowed_in FILE
allowed_in() { sed -nE 's/^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| .*/\1|\2|\3/p' "$1"; }
