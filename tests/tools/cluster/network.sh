# The cluster's network: a namespace per node and one that is the switch between them and the host. Sourced.
#
#   host veth flyweight0 (.0.1) -- [flyweight-switch: br0] -- [flyweight-node1: eth0 (.0.11)]
#                                                          -- [flyweight-node2: eth0 (.0.12)]
# All rules of kube-proxy and the CNI plugins stay inside; deleting the namespaces deletes everything.
# shellcheck shell=bash disable=SC2034

readonly SWITCH=flyweight-switch HOST_LINK=flyweight0
# tried in this order until one is free on this host; each is the first half of a /16
readonly PREFIXES=(10.213 10.231 172.29 10.187)

set_addresses() {
    PREFIX=$1
    HOST_IP=$PREFIX.0.1
    POD_RANGE=$PREFIX.64.0/18
    SERVICE_RANGE=$PREFIX.128.0/18
    API_SERVICE_IP=$PREFIX.128.1
    DNS_SERVICE_IP=$PREFIX.128.10
}

node_ip() { echo "$PREFIX.0.1$1"; }
pod_range_of() { echo "$PREFIX.6$((3 + $1)).0/24"; }
namespace_of() { echo "flyweight-node$1"; }

# in a node's network; not by "ip netns exec", which hides the cgroup mounts: in_node N COMMAND...
in_node() {
    local namespace
    namespace=$(namespace_of "$1")
    shift
    nsenter --net="/run/netns/$namespace" -- "$@"
}

# The same in the background, free of this shell, and every step an exec, so that STARTED is the process id of the
# command itself: start_in_node N LOG COMMAND...
start_in_node() {
    local namespace log=$2
    namespace=$(namespace_of "$1")
    shift 2
    { exec nsenter --net="/run/netns/$namespace" -- setsid -- "$@" >"$log" 2>&1 </dev/null 9>&-; } &
    STARTED=$!
    disown
}

choose_prefix() {
    local prefix
    for prefix in "${PREFIXES[@]}"; do
        if [[ -z $(ip -4 route show root "$prefix.0.0/16") &&
            -z $(ip -4 route show match "$prefix.0.0/16" | sed "/^default/d") ]]; then
            set_addresses "$prefix"
            return
        fi
    done
    die "all address ranges are in use on this host: ${PREFIXES[*]}"
}

network_up() {
    local nodes=$1 number
    ip netns add $SWITCH
    ip -n $SWITCH link add br0 type bridge
    # the switch only passes frames on: no packet filter between the nodes
    nsenter --net=/run/netns/$SWITCH -- sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
    ip -n $SWITCH link set br0 up
    ip link add $HOST_LINK type veth peer name host netns $SWITCH
    ip -n $SWITCH link set host master br0 up
    ip addr add "$HOST_IP/24" dev $HOST_LINK
    ip link set $HOST_LINK up
    for ((number = 1; number <= nodes; number++)); do node_network_up "$number"; done
    for ((number = 1; number <= nodes; number++)); do node_routes_up "$number" "$nodes"; done
    ip route add "$SERVICE_RANGE" via "$(node_ip 1)" dev $HOST_LINK
}

node_network_up() {
    local number=$1 namespace
    namespace=$(namespace_of "$number")
    ip netns add "$namespace"
    ip -n "$namespace" link set lo up
    ip -n "$namespace" link add eth0 type veth peer name "node$number" netns $SWITCH
    ip -n $SWITCH link set "node$number" master br0 up
    ip -n "$namespace" addr add "$(node_ip "$number")/24" dev eth0
    ip -n "$namespace" link set eth0 up
    in_node "$number" sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
    # traffic between pods of one node must meet kube-proxy's rules
    in_node "$number" sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
}

node_routes_up() {
    local number=$1 nodes=$2 other
    for ((other = 1; other <= nodes; other++)); do
        ((other == number)) || ip -n "$(namespace_of "$number")" route add "$(pod_range_of "$other")" via "$(node_ip "$other")"
    done
    ip route add "$(pod_range_of "$number")" via "$(node_ip "$number")" dev $HOST_LINK
}

# Every namespace of the cluster that exists, the nodes' first.
namespaces() { ip netns list 2>/dev/null | awk '/^flyweight-/ {print $1}' | sort; }

network_down() {
    local namespace
    ip link del $HOST_LINK 2>/dev/null || true
    for namespace in $(namespaces); do ip netns del "$namespace"; done
}

# The process ids of all that runs in the cluster's network, containers excepted.
processes() {
    local namespace
    for namespace in $(namespaces); do ip netns pids "$namespace"; done
}
