#!/usr/bin/env bash
# The local cluster begins again when its processes were killed: all of them, as by an end of the machine, or one.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")"
# shellcheck source=tools/lib.sh
. tools/lib.sh

kill_all() {
    local namespace
    for namespace in $(ip netns list | awk '/^flyweight/ { print $1 }'); do
        # shellcheck disable=SC2046  # one word per process
        kill -KILL $(ip netns pids "$namespace") 2>/dev/null || true
    done
}

# By its whole beginning, so that nothing else is meant.
kill_etcd() { pkill -KILL -f "^$(tool_dir kubernetes)/kubernetes etcd --data-dir="; }

! tools/cluster.sh status >/dev/null || die "a cluster is in use: cluster.sh down first"
trap 'tools/cluster.sh down' EXIT
tools/cluster.sh up --control-plane-only
for fault in kill_all kill_etcd; do
    $fault
    ! tools/cluster.sh status >/dev/null || die "nothing happened to the cluster: $fault"
    tools/cluster.sh up --control-plane-only
    tools/cluster.sh status >/dev/null || die "the cluster is not healthy after: $fault"
done
ok "a cluster without its processes begins again"
