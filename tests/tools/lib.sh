# What all scripts in this folder share: where things are, how to speak, how to wait. Sourced, never run.
# shellcheck shell=bash disable=SC2034

TOOLS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
CACHE=${FLYWEIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flyweight}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# shellcheck source=versions.env
. "$TOOLS_DIR/versions.env"

readonly EXIT_FAILED=1 EXIT_USAGE=2 EXIT_UNAVAILABLE=3

if [[ -t 2 && -z ${NO_COLOR:-} ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' DIM=$'\e[2m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' GREEN='' DIM='' PLAIN=''
fi

step() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*" >&2; }
ok() { printf '%s ok%s %s\n' "$GREEN" "$PLAIN" "$*" >&2; }
note() { printf '%s    %s%s\n' "$DIM" "$*" "$PLAIN" >&2; }
die() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
    exit "$EXIT_FAILED"
}
usage_error() {
    printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
    exit "$EXIT_USAGE"
}

have() { command -v -- "$1" >/dev/null 2>&1; }

# seconds since START, one decimal: elapsed START (START from $EPOCHREALTIME)
elapsed() {
    local now=${EPOCHREALTIME/[.,]/} start=${1/[.,]/}
    local tenths=$(((now - start) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# run a condition until it holds: wait_until SECONDS COMMAND...
wait_until() {
    local deadline=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/[.,]/} < deadline)) || return 1
        sleep 0.05
    done
}

# a short digest of some files, so that what is built from them is rebuilt when they change
digest_of() { cat -- "$@" | sha256sum | cut -c1-8; }

# where a tool is kept once it is there: tool_dir NAME
tool_dir() {
    case $1 in
        mysql) echo "$CACHE/tools/mysql-$MYSQL_SERIES-$(digest_of "$TOOLS_DIR/accounts.sql")" ;;
        mariadb) echo "$CACHE/tools/mariadb-$MARIADB_SERIES-$(digest_of "$TOOLS_DIR/accounts.sql")" ;;
        redis) echo "$CACHE/tools/redis-$REDIS_SERIES" ;;
        kafka) echo "$CACHE/tools/kafka-$KAFKA_VERSION-$(digest_of "$TOOLS_DIR"/kafka/*)" ;;
        mongo) echo "$CACHE/tools/mongo-$MONGO_SERVER_VERSION-$(digest_of "$TOOLS_DIR/mongo-server/pom.xml" "$TOOLS_DIR"/mongo-server/src/*.java)" ;;
        kubernetes) echo "$CACHE/tools/kubernetes-$KUBERNETES_VERSION-$(digest_of "$TOOLS_DIR"/kubernetes/{go.mod,go.sum,main.go,pause/main.go})" ;;
        autobahn) echo "$CACHE/tools/autobahn-$AUTOBAHN_VERSION" ;;
        h2spec) echo "$CACHE/tools/h2spec-$H2SPEC_VERSION-$(digest_of "$TOOLS_DIR"/h2spec/go.{mod,sum})" ;;
        keycloak) echo "$CACHE/tools/keycloak-$KEYCLOAK_VERSION" ;;
        helm) echo "$CACHE/tools/helm-$HELM_VERSION" ;;
        faketime) echo "$CACHE/tools/faketime-$(digest_of "$TOOLS_DIR/faketime/threads.c")" ;;
        node | bench | valgrind) echo "$CACHE/tools/$1" ;;
        schemathesis) echo "$CACHE/tools/schemathesis-$SCHEMATHESIS_VERSION" ;;
        browser) echo "$CACHE/tools/browser-$PLAYWRIGHT_VERSION" ;;
        *) return 1 ;;
    esac
}
