# The stores inside the cluster's network: real servers on node 1's address, as processes of this host. Sourced.
# shellcheck shell=bash

readonly STORES=(mysql mongo redis kafka)

store_port() {
    case $1 in
        mysql) echo 3306 ;;
        mongo) echo 27017 ;;
        redis) echo 6379 ;;
        kafka) echo 9092 ;;
        *) usage_error "unknown store: $1 (known: ${STORES[*]})" ;;
    esac
}

stores_up() {
    local name
    for name in "${STORES[@]}"; do
        "$TOOLS_DIR/install.sh" --check "$name" || exit
    done
    for name in "${STORES[@]}"; do store_start "$name"; done
    for name in "${STORES[@]}"; do store_wait "$name"; done
    stores_urls
}

stores_urls() {
    local name variable
    for name in "${STORES[@]}"; do
        case $name in
            mysql) variable=MYSQL_URL ;;
            mongo) variable=MONGODB_URI ;;
            redis) variable=REDIS_URL ;;
            kafka) variable=KAFKA_BROKERS ;;
        esac
        echo "$variable=$("$TOOLS_DIR/url.sh" "$name" "$(node_ip 1)" "$(store_port "$name")")"
    done
}

stores_down() {
    local name
    for name in "${STORES[@]}"; do
        store_signal "$name" KILL
    done
    rm -rf -- "$STATE/stores"
}

# the process that serves a store, if there is one
store_pid() {
    local pid
    pid=$(cat "$STATE/stores/$1.pid" 2>/dev/null) || return 1
    # the number may be another's by now: ours is in the cluster's network
    [[ /proc/$pid/ns/net -ef /run/netns/$(namespace_of 1) ]] || return 1
    echo "$pid"
}

store_start() {
    local port
    port=$(store_port "$1")
    mkdir -p "$STATE/stores"
    if store_pid "$1" >/dev/null; then return; fi
    start_in_node 1 /dev/null env BIND="$(node_ip 1)" "$TOOLS_DIR/serve.sh" "$1" "$STATE/stores/$1" "$port"
    echo "$STARTED" >"$STATE/stores/$1.pid"
}

store_wait() {
    "$TOOLS_DIR/wait.sh" "$1" "$(node_ip 1)" "$(store_port "$1")" 60 ||
        { tail -n 20 "$STATE/stores/$1/server.log" >&2 && die "$1 did not start"; }
}

store_signal() {
    local pid
    pid=$(store_pid "$1") || return 0
    kill -s "$2" "$pid" 2>/dev/null || true
    if [[ $2 == KILL || $2 == TERM ]]; then wait_until 30 store_gone "$pid" || die "$1 does not end"; fi
}

store_gone() { [[ ! -e /proc/$1 || $(awk '/^State:/ {print $2}' "/proc/$1/status" 2>/dev/null) =~ ^(Z|)$ ]]; }

# kill: at once, as in a crash; stop and cont: frozen and thawed, as in a stall; start: again, with the data kept
store_command() {
    [[ $# -eq 2 ]] || usage_error "store takes an action and a name"
    store_port "$2" >/dev/null
    case $1 in
        kill) store_signal "$2" KILL ;;
        end) store_signal "$2" TERM ;;
        stop) store_signal "$2" STOP ;;
        cont) store_signal "$2" CONT ;;
        start) store_start "$2" && store_wait "$2" ;;
        *) usage_error "unknown action: $1 (kill, end, stop, cont, start)" ;;
    esac
}
