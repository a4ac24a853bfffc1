#!/usr/bin/env bash
# Holds a pod and a gateway against h2spec, over cleartext and over TLS. What fails is shown; docs/http2.md says why it may.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

readonly VERSION=v2.6.0
TOOL="${FLYWEIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flyweight}/tools/h2spec/$VERSION"
PROGRAM="${CARGO_TARGET_DIR:-target}/debug/flyweight-dataplane"
WORK=$(mktemp -d)
PIDS=()
trap 'kill "${PIDS[@]}" 2>/dev/null || true; wait; rm -rf -- "$WORK"' EXIT

port() { tests/tools/port.sh; }

# Waits until a server says that it is ready: wait_ready ADMIN_PORT
wait_ready() {
    for _ in $(seq 150); do
        curl --silent --fail --output /dev/null "http://127.0.0.1:$1/readyz" && return
        sleep 0.2
    done
    echo "port $1 is not ready" >&2
    return 1
}

# The samples over TLS, with a certificate for localhost.
make_tls() {
    mkdir -p "$WORK/security/tls" "$WORK/security/encryption" "$WORK/samples"
    local key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    openssl req -x509 "${key[@]}" -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
        -keyout "$WORK/security/tls/tls.key" -out "$WORK/security/tls/tls.crt" 2>/dev/null
    cp -- "$WORK/security/tls/tls.crt" "$WORK/security/tls/ca.crt"
    head -c 32 /dev/urandom | base64 >"$WORK/security/encryption/key"
    cp -- configs/samples/*.yaml "$WORK/samples"
    sed -i '0,/^spec:$/s//spec:\n  security: { tls: { secretRef: { name: shop-tls } } }/' "$WORK/samples/service.yaml"
}

# Starts a pod and a gateway, and sets POD and GATEWAY: start NAME MANIFESTS [ARGUMENT...]
start() {
    local name=$1 manifests=$2 admin
    shift 2
    POD=$(port) && admin=$(port)
    "$PROGRAM" serve --manifests "$manifests" --data-dir "$WORK/$name" --port "$POD" --admin-port "$admin" "$@" >"$WORK/$name-pod.log" 2>&1 &
    PIDS+=($!)
    wait_ready "$admin"
    GATEWAY=$(port) && admin=$(port)
    "$PROGRAM" gateway --manifests "$manifests" --upstream "main=127.0.0.1:$POD" --port "$GATEWAY" --admin-port "$admin" "$@" >"$WORK/$name-gateway.log" 2>&1 &
    PIDS+=($!)
    wait_ready "$admin"
}

# One run: hold TITLE PORT [ARGUMENT...]
hold() {
    local title=$1 port=$2
    shift 2
    echo "== $title"
    "$TOOL/h2spec" --host localhost --port "$port" --timeout 5 --path /livez "$@" >"$WORK/out" 2>&1 || true
    grep -E '^(Failures|Finished|[0-9]+ tests)|^ +×' "$WORK/out" || cat -- "$WORK/out"
}

[[ -x $TOOL/h2spec ]] || GOBIN=$TOOL GOFLAGS=-buildvcs=false go install -trimpath "github.com/summerwind/h2spec/cmd/h2spec@$VERSION"
start plain configs/samples
hold "pod, cleartext" "$POD"
hold "gateway, cleartext" "$GATEWAY"
make_tls
start secure "$WORK/samples" --security "$WORK/security"
hold "pod, TLS" "$POD" --tls --insecure
hold "gateway, TLS" "$GATEWAY" --tls --insecure
