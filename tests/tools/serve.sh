#!/usr/bin/env bash
# Runs one real server in the foreground; the process of this script becomes the server.
#
# So a test may kill, stop and continue its child and start it again on the same folder and port: what the
# server acknowledged is still there. A folder that is empty is set up first, before the port is opened.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

main() {
    case ${1:-} in
        -h | --help) help && exit 0 ;;
        mysql) DEFAULT_PORT=3306 ;;
        mariadb) DEFAULT_PORT=3307 ;;
        redis) DEFAULT_PORT=6379 ;;
        kafka) DEFAULT_PORT=9092 ;;
        mongo) DEFAULT_PORT=27017 ;;
        *) help >&2 && exit "$EXIT_USAGE" ;;
    esac
    PREPARE=''
    if [[ ${2:-} == --prepare ]]; then
        PREPARE=yes
        set -- "$1" "${@:3}"
    fi
    [[ $# -ge 2 && $# -le 3 ]] || { help >&2 && exit "$EXIT_USAGE"; }
    NAME=$1 PORT=${3:-$DEFAULT_PORT} BIND=${BIND:-127.0.0.1} TOOL=$(tool_dir "$1")
    [[ $PORT =~ ^[0-9]+$ ]] || usage_error "not a port: $PORT"
    [[ -e $TOOL/.ready ]] || "$TOOLS_DIR/install.sh" --check "$NAME" || exit
    mkdir -p -- "$2"
    DIR=$(cd -- "$2" && pwd)
    exec >>"$DIR/server.log" 2>&1 </dev/null
    # what a first start leaves half done when it is killed is done anew
    rm -rf -- "$DIR/data.new"
    "serve_$NAME"
}

help() {
    cat <<TEXT
usage: serve.sh mysql|mariadb|redis|kafka|mongo DIR [PORT]
       serve.sh mysql|mariadb --prepare DIR   only makes DIR/data
Data, sockets and DIR/server.log are in DIR. Environment:
  BIND              address to listen on (127.0.0.1)
  ADVERTISE         kafka: the address that clients are told (BIND)
  REDIS_APPENDONLY  yes: redis keeps its data in an append-only file (no)
  REDIS_PASSWORD    redis: the password that clients must give (none)
  KAFKA_OPTS        kafka: more options for Java
  MYSQL_OPTS        mysql, mariadb: more options of the server
  KAFKA_SECURE      yes: kafka listens with TLS and SCRAM too, and DIR/secret has what a client is given for that (no)
Accounts of mysql and mariadb: shop / shop-secret (database shop, and any shop_...), root / root-secret.
TEXT
}

serve_mysql() {
    local root=$TOOL/root loader program
    loader=$root/usr/lib64/ld-linux-x86-64.so.2
    program=("$loader" --library-path "$root/usr/lib/x86_64-linux-gnu" --argv0 "$root/usr/sbin/mysqld" "$root/usr/sbin/mysqld"
        --no-defaults --user="$(id -un)" --basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql"
        --character-sets-dir="$root/usr/share/mysql/charsets" --plugin-dir="$root/usr/lib/mysql/plugin"
        --mysqlx=OFF --secure-file-priv=NULL --performance-schema=OFF
        --disable-log-bin --innodb-buffer-pool-size=64M --innodb-redo-log-capacity=64M --innodb-log-buffer-size=4M)
    if no_data; then
        "${program[@]}" --datadir="$DIR/data.new" --initialize-insecure --init-file="$TOOLS_DIR/accounts.sql"
        data_made
    fi
    # a killed server leaves a lock with its process id, which another process may have by now
    rm -f -- "$(socket_path)" "$(socket_path).lock"
    # shellcheck disable=SC2206  # several options in one variable
    program+=(${MYSQL_OPTS:-})
    exec "${program[@]}" --datadir="$DIR/data" --socket="$(socket_path)" --pid-file="$DIR/server.pid" \
        --port="$PORT" --bind-address="$BIND" --skip-name-resolve --max-connections=500 --table-open-cache=400 \
        --innodb-flush-log-at-trx-commit=1
}

serve_mariadb() {
    local common=(--no-defaults --user="$(id -un)" --innodb-buffer-pool-size=64M --innodb-log-file-size=32M)
    if no_data; then
        mkdir -p "$DIR/data.new"
        mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$DIR/data.new" --skip-test-db \
            --auth-root-authentication-method=normal --innodb-log-file-size=32M
        { echo 'FLUSH PRIVILEGES;' && cat "$TOOLS_DIR/accounts.sql"; } |
            mariadbd "${common[@]}" --datadir="$DIR/data.new" --bootstrap
        data_made
    fi
    # shellcheck disable=SC2206  # several options in one variable
    common+=(${MYSQL_OPTS:-})
    exec "$(command -v mariadbd)" "${common[@]}" --datadir="$DIR/data" --socket="$(socket_path)" \
        --pid-file="$DIR/server.pid" --port="$PORT" --bind-address="$BIND" --skip-name-resolve --skip-log-bin \
        --max-connections=500 --performance-schema=OFF --innodb-flush-log-at-trx-commit=1
}

# Whether the data must be made; the installation keeps a copy of fresh data, which is quicker than making them.
no_data() {
    [[ ! -e $DIR/data ]] || return 1
    [[ -e $TOOL/fresh ]] || return 0
    cp -a --sparse=always -- "$TOOL/fresh" "$DIR/data.new"
    mv -T -- "$DIR/data.new" "$DIR/data"
    return 1
}

data_made() {
    # each server gets an identity of its own at its first start
    rm -f -- "$DIR/data.new/auto.cnf"
    mv -T -- "$DIR/data.new" "$DIR/data"
    if [[ -n $PREPARE ]]; then exit 0; fi
}

# A socket's path may have about 100 characters, a folder of a test's has often more.
socket_path() {
    local path=$DIR/server.sock
    if ((${#path} > 100)); then path=/tmp/flyweight-$(cksum <<<"$DIR" | cut -d' ' -f1).sock; fi
    echo "$path"
}

serve_redis() {
    local options=(--bind "$BIND" --port "$PORT" --dir "$DIR" --protected-mode no --save '' --appendfsync everysec
        --appendonly "${REDIS_APPENDONLY:-no}")
    if [[ -n ${REDIS_PASSWORD:-} ]]; then options+=(--requirepass "$REDIS_PASSWORD"); fi
    exec "$TOOL/redis-server" "${options[@]}"
}

serve_kafka() {
    # the controller listens on a loopback address that belongs to this port, so one port number is enough
    local controller=127.77.$((PORT / 256)).$((PORT % 256)):9093
    if [[ $PORT == 9093 ]]; then controller=${controller%:*}:9094; fi
    if [[ ${KAFKA_SECURE:-} == yes ]]; then
        secure_kafka "$controller" 127.78.$((PORT / 256)).$((PORT % 256))
    else
        no_data && die "$TOOL/fresh is missing: install kafka again"
        kafka_properties "$controller" >"$DIR/server.properties"
    fi
    local options=(-Xmx256m -Xms64m -XX:+UseSerialGC -Dlog4j2.configurationFile="$TOOLS_DIR/kafka/log4j2.properties")
    # shellcheck disable=SC2206  # several options in one variable
    options+=(${KAFKA_OPTS:-})
    if [[ -e $TOOL/kafka.jsa ]]; then options+=(-XX:SharedArchiveFile="$TOOL/kafka.jsa" -Xshare:auto); fi
    exec java "${options[@]}" -cp "$(class_path)" kafka.Kafka "$DIR/server.properties"
}

# A listener of its own with TLS and an account, on a loopback address that belongs to the port: secure_kafka CONTROLLER ADDRESS
secure_kafka() {
    local secret=$DIR/secret
    { kafka_properties "$1" && secure_properties "$1" "$2:9095"; } >"$DIR/server.properties"
    [[ ! -e $DIR/data ]] || return 0
    mkdir -p "$secret"
    key_pair() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "$@" 2>/dev/null; }
    key_pair -x509 -days 30 -subj /CN=flyweight-test-ca -keyout "$DIR/ca.key" -out "$secret/ca.crt"
    key_pair -subj /CN=kafka -keyout "$DIR/kafka.key" -out "$DIR/kafka.csr"
    openssl x509 -req -days 30 -in "$DIR/kafka.csr" -CA "$secret/ca.crt" -CAkey "$DIR/ca.key" -CAcreateserial \
        -extfile <(echo "subjectAltName=IP:$2") -out "$DIR/kafka.crt" 2>/dev/null
    cat "$DIR/kafka.key" "$DIR/kafka.crt" >"$DIR/kafka.pem"
    local password
    password=$(openssl rand -hex 12)
    printf %s "$2:9095" >"$secret/url"
    printf %s shop >"$secret/username"
    printf %s "$password" >"$secret/password"
    sed "s|^log.dirs=.*|log.dirs=$DIR/data.new|" "$DIR/server.properties" >"$DIR/format.properties"
    java -Xmx128m -cp "$(class_path)" kafka.tools.StorageTool format --cluster-id Rmx5d2VpZ2h0LXRlc3RzMQ \
        --config "$DIR/format.properties" --add-scram "SCRAM-SHA-512=[name=shop,password=$password]"
    mv -T -- "$DIR/data.new" "$DIR/data"
}

# The later of two lines of one name counts: secure_properties CONTROLLER LISTENER
secure_properties() {
    cat <<PROPERTIES
listeners=PLAINTEXT://$BIND:$PORT,CONTROLLER://$1,SECURE://$2
advertised.listeners=PLAINTEXT://${ADVERTISE:-$BIND}:$PORT,SECURE://$2
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.ssl.keystore.type=PEM
listener.name.secure.ssl.keystore.location=$DIR/kafka.pem
PROPERTIES
}

kafka_properties() {
    cat <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$1
listeners=PLAINTEXT://$BIND:$PORT,CONTROLLER://$1
advertised.listeners=PLAINTEXT://${ADVERTISE:-$BIND}:$PORT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$DIR/data
num.partitions=6
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=3000
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.threads=1
PROPERTIES
}

serve_mongo() {
    mkdir -p "$DIR/data"
    exec java -Xmx512m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$(class_path)" MongoServerMain "$BIND" "$PORT" "$DIR/data/store.mv"
}

# Java takes an archive of classes only with the very same class path, hence sorted and written out.
class_path() {
    local jars=("$TOOL"/lib/*.jar)
    (IFS=: && echo "${jars[*]}")
}

main "$@"
