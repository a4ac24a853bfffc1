#!/usr/bin/env bash
# Serves the samples, and builds and starts anew whenever a source or a manifest changes: `make dev`.
#
# A build that fails leaves the process that runs. FILES_EVERY is how often files are looked at, in seconds.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."

readonly PROGRAM=${1:?usage: dev.sh PROGRAM MANIFESTS ARGUMENT...} MANIFESTS=${2:?} EVERY=${FILES_EVERY:-1}
shift 2
SERVER=

main() {
    trap finish EXIT
    trap 'exit 0' INT TERM
    local before='' now
    while true; do
        now=$(state)
        if [[ $now != "$before" ]]; then
            before=$now
            restart "$@"
        elif [[ -n $SERVER ]] && ! kill -0 "$SERVER" 2>/dev/null; then
            echo "it ended: waiting for a change" >&2
            SERVER=
        fi
        sleep "$EVERY"
    done
}

# Changes with any file that the program is made of, or that it reads at its start.
state() {
    {
        git ls-files -co --exclude-standard -z -- '*.rs' '*Cargo.toml' Cargo.lock dataplane/assets crds/generated
        find "$MANIFESTS" -name '*.y*ml' -print0
    } | xargs -0 stat -c '%n %Y %s' 2>/dev/null | sha256sum
}

restart() {
    if ! make --no-print-directory embedded; then
        echo "the build failed: ${SERVER:+the former process goes on; }waiting for a change" >&2
        return
    fi
    stop
    "$PROGRAM" serve --manifests "$MANIFESTS" "$@" &
    SERVER=$!
}

stop() {
    [[ -n $SERVER ]] || return 0
    kill -TERM "$SERVER" 2>/dev/null || true
    wait "$SERVER" 2>/dev/null || true
    SERVER=
}

finish() { stop; }

main "$@"
