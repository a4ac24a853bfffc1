#!/usr/bin/env bash
# A small real Kubernetes on this machine, without a container engine: up in seconds, gone without a trace.
#
# The parts are in cluster/: network, certificates, control plane, node, stores. Everything runs below network
# namespaces named flyweight-*, and whatever runs in those is what "down" ends; it needs no list of processes.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=cluster/network.sh
. "$TOOLS_DIR/cluster/network.sh"
# shellcheck source=cluster/pki.sh
. "$TOOLS_DIR/cluster/pki.sh"
# shellcheck source=cluster/control-plane.sh
. "$TOOLS_DIR/cluster/control-plane.sh"
# shellcheck source=cluster/stores.sh
. "$TOOLS_DIR/cluster/stores.sh"

readonly RUN=/run/flyweight # sockets, and which state folder belongs to the cluster that is up
# what kubelet changes on the host; put back on the way down
readonly HOST_SETTINGS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys
    kernel.keys.root_maxbytes)

main() {
    local command=${1:-help}
    shift || true
    case $command in
        up | down | status | kubeconfig | kubectl | import | stores | store | logs) ;;
        help | -h | --help) help && exit 0 ;;
        *) help >&2 && exit "$EXIT_USAGE" ;;
    esac
    [[ $EUID -eq 0 ]] || {
        echo "unavailable: cluster: not root; run as root (network namespaces, containers)"
        exit "$EXIT_UNAVAILABLE"
    }
    KUBERNETES=$(tool_dir kubernetes)/kubernetes
    STATE=${FLYWEIGHT_CLUSTER_DIR:-$CACHE/cluster}
    if [[ -e $RUN/cluster ]]; then
        # shellcheck source=/dev/null
        . $RUN/cluster # STATE, NODES, PREFIX of the cluster that is up
        set_addresses "$PREFIX"
    fi
    case $command in
        up | down | stores | store)
            exec 9>/run/lock/flyweight-cluster.lock
            flock -w 300 9 || die "another cluster.sh has been at work for 5 minutes"
            ;;
    esac
    "cluster_$command" "$@"
}

help() {
    cat <<TEXT
usage: cluster.sh COMMAND
  up [--nodes 1|2] [--control-plane-only]   start; returns at once if it is up and healthy, begins again if it is not
  down                                      end and remove everything, also after a crash
  status                                    what is up; exit code 0 only if it is healthy
  kubeconfig                                print the path of the administrator's kubeconfig
  kubectl ARGUMENT...                       the kubectl of the cluster's version
  import ARCHIVE.tar...                     load images into every node
  stores up | down | urls                   MySQL, MongoDB, Redis, Kafka on node 1's address; print NAME=URL lines
  store kill|end|stop|cont|start NAME       SIGKILL, SIGTERM, SIGSTOP, SIGCONT, or start again with the data kept
  logs [NAME]                               list the logs, or print one (kube-apiserver, kubelet-node1, ...)
state: ${FLYWEIGHT_CLUSTER_DIR:-$CACHE/cluster} (FLYWEIGHT_CLUSTER_DIR)
exit code: 0 done, 1 failed, 2 wrong use, 3 cannot be had here
TEXT
}

cluster_up() {
    local nodes=1 start=$EPOCHREALTIME
    while (($#)); do
        case $1 in
            --nodes) nodes=${2:?} && shift 2 ;;
            --control-plane-only) nodes=0 && shift ;;
            *) usage_error "unknown option: $1" ;;
        esac
    done
    [[ $nodes =~ ^[0-2]$ ]] || usage_error "--nodes takes 1 or 2"
    "$TOOLS_DIR/install.sh" --check kubernetes || exit
    "$TOOLS_DIR/install.sh" --check node || exit
    if in_use; then
        [[ $NODES == "$nodes" ]] || die "a cluster of $NODES nodes is up, $nodes are asked for: cluster.sh down first"
        ok "already up"
        return
    fi
    remove_all # what a crash of the machine, of the cluster or of an earlier start left
    NODES=$nodes
    choose_prefix
    mkdir -p $RUN "$STATE"/{logs,etcd}
    rm -f -- "$STATE"/logs/*
    printf 'STATE=%q\nNODES=%q\nPREFIX=%q\n' "$STATE" "$NODES" "$PREFIX" >$RUN/cluster
    trap 'status=$?; ((status == 0)) || give_up' EXIT
    sysctl "${HOST_SETTINGS[@]}" 2>/dev/null | sed 's/ = /=/' >"$STATE/host-settings"
    step "cluster: control plane and $NODES nodes on $PREFIX.0.0/16"
    network_up "$((NODES > 1 ? NODES : 1))"
    start_etcd
    make_pki
    await 30 etcd_ready "etcd"
    start_api
    local number
    for ((number = 1; number <= NODES; number++)); do start_node "$number"; done
    await 120 api_ready "the API server"
    start_controllers
    if ((NODES > 0)); then start_dns; fi
    await 120 controllers_ready "the controllers"
    if ((NODES > 0)); then
        await 120 nodes_ready "the nodes"
        await 30 dns_ready "the cluster's DNS"
    fi
    touch $RUN/complete
    ok "cluster up in $(elapsed "$start"); export KUBECONFIG=$STATE/kubeconfig"
}

# After a start that failed: say why, keep the logs, leave nothing else.
give_up() {
    local log
    for log in "$STATE"/logs/*.log; do
        [[ -s $log ]] || continue
        note "--- end of $log"
        tail -n 3 -- "$log" >&2
    done
    remove_all
    note "the logs are kept in $STATE/logs"
}

start_node() {
    local name=node$1 node=$STATE/node$1 cgroup=/flyweight/node$1 snapshotter=overlayfs
    mkdir -p "$node"
    make_cgroup "$cgroup"
    [[ -e $STATE/pause.tar ]] ||
        "$TOOLS_DIR/image.sh" --name flyweight.dev/pause:1 --out "$STATE/pause.tar" "$(tool_dir kubernetes)/pause" 2>/dev/null
    # one overlay does not carry another
    if [[ $(stat -f -c %T -- "$STATE") == overlayfs ]]; then snapshotter=native; fi
    printf '%s=%q\n' NAME "$name" IP "$(node_ip "$1")" PODS "$(pod_range_of "$1")" POD_RANGE "$POD_RANGE" \
        API "https://$(node_ip 1):6443" SOCKET "$RUN/$name.sock" KUBERNETES "$KUBERNETES" DNS "$DNS_SERVICE_IP" \
        PROXY_KUBECONFIG "$STATE/pki/proxy.kubeconfig" CA "$STATE/pki/ca.crt" CGROUP "$cgroup" LOGS "$STATE/logs" \
        PAUSE_IMAGE "$STATE/pause.tar" SNAPSHOTTER "$snapshotter" PATH "$PATH" >"$node/settings"
    start_in_node "$1" "$STATE/logs/$name.log" \
        unshare --mount --pid --fork --kill-child -- "$TOOLS_DIR/cluster/node.sh" "$node"
}

# kubelet wants the group that its pods are to be below; cgroup v1 has one tree per controller
make_cgroup() {
    local tree folder
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        for folder in "" /flyweight "$1"; do
            mkdir -p "/sys/fs/cgroup$folder"
            sed 's/\([a-z]\+\)/+\1/g' "/sys/fs/cgroup$folder/cgroup.controllers" >"/sys/fs/cgroup$folder/cgroup.subtree_control"
        done
        return
    fi
    for tree in /sys/fs/cgroup/*/; do
        [[ -e $tree/cgroup.procs && $tree != */unified/ ]] || continue
        mkdir -p "$tree$1"
        [[ -e $tree/cpuset.cpus ]] || continue
        for folder in "${tree}flyweight" "$tree$1"; do
            cat "$tree/cpuset.cpus" >"$folder/cpuset.cpus"
            cat "$tree/cpuset.mems" >"$folder/cpuset.mems"
        done
    done
}

# A start that was killed leaves no mark. A mark may be left without the processes, or with some: then nobody can use it.
in_use() {
    [[ -e $RUN/complete && -n $(processes) ]] || return 1
    wait_until 10 healthy || { note "the cluster that was up is not healthy: begin again" && return 1; }
}

nodes_ready() { [[ $(kubectl get nodes --no-headers 2>/dev/null | grep -c ' Ready ') == "$NODES" ]]; }

healthy() { api_ready && controllers_ready && { ((NODES == 0)) || { nodes_ready && dns_ready; }; }; }

kubectl() { "$KUBERNETES" kubectl --kubeconfig="$STATE/kubeconfig" "$@"; }

cluster_down() {
    local start=$EPOCHREALTIME
    remove_all
    ok "cluster down in $(elapsed "$start")"
}

# Asks for nothing to be in order: ends what is in the namespaces, then takes away what is left.
remove_all() {
    wait_until 30 all_ended || die "these processes do not end: $(processes | tr '\n' ' ')"
    network_down
    local tree
    for tree in /sys/fs/cgroup/flyweight /sys/fs/cgroup/*/flyweight; do
        [[ -d $tree ]] || continue
        wait_until 10 remove_cgroup "$tree" || note "could not remove $tree"
    done
    if [[ -s $STATE/host-settings ]]; then sysctl -qp "$STATE/host-settings" >/dev/null 2>&1 || true; fi
    local folder
    for folder in "$STATE"/node? "$STATE"/{etcd,pki,stores,Corefile,kubeconfig,pause.tar,host-settings}; do
        rm -rf -- "$folder"
    done
    rm -rf -- $RUN
}

all_ended() {
    local running
    running=$(processes)
    [[ -n $running ]] || return 0
    # shellcheck disable=SC2086  # one word per process
    kill -KILL $running 2>/dev/null || true
    return 1
}

remove_cgroup() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || [[ ! -e $1 ]]; }

must_be_up() { [[ -e $RUN/complete ]] || die "the cluster is not up: cluster.sh up"; }

cluster_status() {
    [[ -e $RUN/complete ]] || { echo "down" && exit "$EXIT_FAILED"; }
    echo "kubeconfig  $STATE/kubeconfig"
    echo "API server  https://$(node_ip 1):6443 $(api_ready && echo ready || echo 'not ready')"
    if ((NODES > 0)); then
        echo "DNS         $DNS_SERVICE_IP $(dns_ready && echo ready || echo 'not ready')"
        kubectl get nodes --no-headers 2>/dev/null | awk '{printf "node        %s %s\n", $1, $2}'
        echo "ranges      pods $POD_RANGE, services $SERVICE_RANGE, host $HOST_IP"
    fi
    local store
    for store in "${STORES[@]}"; do
        if store_pid "$store" >/dev/null; then echo "store       $store, process $(store_pid "$store")"; fi
    done
    healthy
}

cluster_kubeconfig() { must_be_up && echo "$STATE/kubeconfig"; }

cluster_kubectl() { must_be_up && kubectl "$@"; }

cluster_import() {
    must_be_up
    (($# > 0)) || usage_error "import takes image archives"
    local archive number
    for archive in "$@"; do
        [[ -r $archive ]] || die "no such archive: $archive"
        for ((number = 1; number <= NODES; number++)); do
            ctr --address "$RUN/node$number.sock" --namespace k8s.io images import "$archive" >&2
        done
    done
}

cluster_stores() {
    must_be_up
    case ${1:-} in
        up) stores_up ;;
        down) stores_down ;;
        urls) stores_urls ;;
        *) usage_error "stores up | down | urls" ;;
    esac
}

cluster_store() { must_be_up && store_command "$@"; }

cluster_logs() {
    if (($# == 0)); then
        ls -1 -- "$STATE/logs"
    else
        cat -- "$STATE/logs/$1.log"
    fi
}

main "$@"
