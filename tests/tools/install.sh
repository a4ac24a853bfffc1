#!/usr/bin/env bash
# Gets the real servers that the tests run against, each once, into a cache.
# shellcheck disable=SC2317  # the install_ and finish_ functions are called by name
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

readonly TOOLS=(mysql mariadb redis kafka mongo faketime kubernetes helm node schemathesis browser)
# what only `make bench` and some `make prove-...` use
readonly MEASURING=(bench valgrind h2spec autobahn keycloak)
# what a node needs on the PATH, and the Debian package that has it
readonly NODE_PROGRAMS=(containerd:containerd ctr:containerd runc:runc iptables:iptables conntrack:conntrack
    ip:iproute2 nsenter:util-linux mount:mount curl:curl openssl:openssl)

main() {
    case ${1:-all} in
        -h | --help) help && exit 0 ;;
        --check)
            [[ $# -eq 2 ]] || usage_error "--check takes one name"
            known "$2"
            check "$2"
            exit
            ;;
        all) set -- "${TOOLS[@]}" ;;
    esac
    local name
    for name in "$@"; do known "$name"; done
    local status worst=0
    for name in "$@"; do
        if (check "$name") >/dev/null; then continue; fi
        # in a shell of its own: what fails must not keep the others from being installed
        set +e
        (set -e && install "$name")
        status=$?
        set -e
        ((status == 0 || worst == EXIT_FAILED)) || worst=$status
    done
    exit "$worst"
}

help() {
    cat <<TEXT
usage: install.sh [all | NAME...]     installs what is missing; all is all but the last ${#MEASURING[@]}
       install.sh --check NAME        exit code 0 if it is there, 3 if not
names: ${TOOLS[*]} ${MEASURING[*]}
cache: $CACHE (FLYWEIGHT_CACHE)
exit code: 0 all there, 1 failed, 2 wrong use, 3 some cannot be had here (one line each says why)
TEXT
}

known() {
    [[ " ${TOOLS[*]} ${MEASURING[*]} " == *" $1 "* ]] || usage_error "unknown tool: $1 (known: ${TOOLS[*]} ${MEASURING[*]})"
}

# one line, and the exit code that lets a suite skip: unavailable NAME WHY WHAT-TO-DO
unavailable() {
    printf 'unavailable: %s: %s; %s\n' "$1" "$2" "$3"
    exit "$EXIT_UNAVAILABLE"
}

check() {
    if [[ $1 == node ]]; then
        local missing
        missing=$(missing_node_packages)
        [[ -z $missing ]] || unavailable node "missing: $missing" "run tests/tools/install.sh node as root"
    elif [[ ! -e $(tool_dir "$1")/.ready ]] || ! still_there "$1"; then
        unavailable "$1" "not installed" "run tests/tools/install.sh $1"
    fi
}

# a Debian package may have been removed since: still_there NAME
still_there() {
    case $1 in
        mariadb) have mariadbd && have mariadb-install-db ;;
        redis) [[ -x $(tool_dir redis)/redis-server ]] ;;
        kafka | mongo | keycloak) have java ;;
        faketime) [[ -e $(tool_dir faketime)/libfaketime.so ]] ;;
        valgrind) have valgrind ;;
        autobahn) "$(tool_dir autobahn)/wstest" --help >/dev/null 2>&1 ;;
        bench) have nginx && have wrk ;;
        schemathesis) "$(tool_dir schemathesis)/venv/bin/python" -c '' ;;
        browser) have chromium && have node ;;
    esac
}

# Builds into a temporary folder and renames it, with one builder per tool at a time.
install() {
    local name=$1 dir start=$EPOCHREALTIME
    dir=$(tool_dir "$name")
    mkdir -p "$CACHE/tools" "$CACHE/locks"
    exec 8>"$CACHE/locks/$name"
    flock -n 8 || { note "$name: another install is at it; waiting" && flock 8; }
    if (check "$name") >/dev/null; then return; fi
    step "$name"
    BUILD=$(mktemp -d "$CACHE/tools/.build-$name.XXXXXX")
    chmod 755 "$BUILD"
    trap 'rm -rf -- "$BUILD"' EXIT
    "install_$name"
    touch "$BUILD/.ready"
    rm -rf -- "$dir"
    mv -T -- "$BUILD" "$dir"
    if declare -F "finish_$name" >/dev/null; then "finish_$name" "$dir"; fi
    ok "$name in $(elapsed "$start")"
}

install_mysql() {
    apt_install mysql mmdebstrap:mmdebstrap
    note "MySQL server from Debian $MYSQL_SUITE, with its libraries"
    mmdebstrap --quiet --variant=extract --include=mysql-server-core \
        --aptopt='Acquire::Check-Valid-Until "false"' "$MYSQL_SUITE" "$BUILD/root" "$MYSQL_MIRROR" >&2 ||
        unavailable mysql "mmdebstrap could not fetch mysql-server-core" "run as root, and see that $MYSQL_MIRROR is reachable"
    rm -rf -- "$BUILD"/root/usr/share/{doc,man,locale} "$BUILD"/root/var/cache/apt "$BUILD"/root/usr/bin/mysql*
    mysql_program "$BUILD" --version >"$BUILD/version"
    grep -q "Ver $MYSQL_SERIES\." "$BUILD/version" || note "other series than expected: $(<"$BUILD/version")"
}

# The loader of the tree with the libraries of the tree: neither chroot nor root is needed.
mysql_program() {
    local root=$1/root
    shift
    "$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/usr/lib/x86_64-linux-gnu" "$root/usr/sbin/mysqld" "$@"
}

# Fresh data with the tests' accounts; copying them takes a tenth of the time of making them.
finish_mysql() { keep_fresh mysql "$1"; }
finish_mariadb() { keep_fresh mariadb "$1"; }

keep_fresh() {
    "$TOOLS_DIR/serve.sh" "$1" --prepare "$2/scratch" ||
        { tail -n 5 "$2/scratch/server.log" >&2 && rm -rf -- "$2" && die "$1: cannot make its data"; }
    mv -T -- "$2/scratch/data" "$2/fresh"
    rm -rf -- "$2/scratch"
}

install_mariadb() {
    # only the programs: the package that also has the system service is mariadb-server
    apt_install mariadb mariadbd:mariadb-server-core mariadb-install-db:mariadb-server-core mariadb:mariadb-client-core
    mariadbd --version >"$BUILD/version"
}

install_redis() {
    # redis-tools has the server under another name; redis-server adds only the system service
    if ! have redis-server; then
        apt_install redis redis-check-rdb:redis-tools redis-cli:redis-tools
        ln -s "$(command -v redis-check-rdb)" "$BUILD/redis-server"
    else
        ln -s "$(command -v redis-server)" "$BUILD/redis-server"
    fi
    "$BUILD/redis-server" --version >"$BUILD/version"
}

install_kafka() {
    need kafka java "a Java runtime, 17 or later" mvn "Maven"
    cp -- "$TOOLS_DIR/kafka/pom.xml" "$BUILD/"
    maven kafka dependency:copy-dependencies
    # A formatted log folder, copied at each first start, saves starting Java twice.
    cat >"$BUILD/format.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
controller.listener.names=CONTROLLER
log.dirs=$BUILD/fresh
PROPERTIES
    java -Xmx128m -cp "$BUILD/lib/*" kafka.tools.StorageTool format \
        --cluster-id Rmx5d2VpZ2h0LXRlc3RzMQ --config "$BUILD/format.properties" >"$BUILD/format.log" 2>&1 ||
        { cat "$BUILD/format.log" >&2 && die "kafka: cannot format a log folder"; }
    echo "$KAFKA_VERSION" >"$BUILD/version"
}

# An archive of the loaded classes halves the start; it names the jars by their final path.
finish_kafka() {
    local port=$((20000 + RANDOM % 10000)) scratch=$1/archive-run server
    mkdir -p "$scratch"
    KAFKA_OPTS="-XX:ArchiveClassesAtExit=$1/kafka.jsa" "$TOOLS_DIR/serve.sh" kafka "$scratch" "$port" &
    server=$!
    "$TOOLS_DIR/wait.sh" kafka 127.0.0.1 "$port" 60 || note "kafka: did not start for the archive"
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
    rm -rf -- "$scratch"
}

install_mongo() {
    need mongo java "a Java runtime, 17 or later" mvn "Maven"
    cp -r -- "$TOOLS_DIR/mongo-server/." "$BUILD/"
    maven mongo package dependency:copy-dependencies
    mv -- "$BUILD"/target/mongo-server-*.jar "$BUILD/lib/"
    rm -rf -- "$BUILD/target" "$BUILD/src"
    echo "$MONGO_SERVER_VERSION" >"$BUILD/version"
}

# An identity provider, whose tokens a service is shown.
install_keycloak() {
    need keycloak java "a Java runtime, 17 or later" mvn "Maven"
    maven keycloak dependency:unpack "-Dartifact=org.keycloak:keycloak-quarkus-dist:$KEYCLOAK_VERSION:zip"
    mv -- "$BUILD/lib" "$BUILD/unpacked"
    mv -- "$BUILD/unpacked/keycloak-$KEYCLOAK_VERSION"/* "$BUILD/"
    rm -rf -- "$BUILD/unpacked"
    echo "$KEYCLOAK_VERSION" >"$BUILD/version"
}

# Looks how a program uses its memory.
install_valgrind() {
    apt_install valgrind valgrind:valgrind
    valgrind --version >"$BUILD/version"
}

# Gives a process another clock.
install_faketime() {
    local library=/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1
    apt_install faketime "$library:libfaketime"
    ln -s "$library" "$BUILD/libfaketime.so"
    need faketime cc "a C compiler"
    cc -shared -fPIC -O2 -Wall -Werror -o "$BUILD/threads.so" "$TOOLS_DIR/faketime/threads.c" -lpthread
}

install_kubernetes() {
    need kubernetes go "Go 1.25 or later"
    local stamp=k8s.io/component-base/version
    note "every part of Kubernetes $KUBERNETES_VERSION in one program; about 6 minutes on two cores"
    (
        cd -- "$TOOLS_DIR/kubernetes"
        export CGO_ENABLED=0 GOFLAGS=-buildvcs=false
        nice -n 5 go build -trimpath -o "$BUILD/kubernetes" -ldflags="-s -w -X $stamp.gitVersion=$KUBERNETES_VERSION
            -X $stamp.gitMajor=1 -X $stamp.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES_VERSION")" .
        go build -trimpath -o "$BUILD/pause" -ldflags='-s -w' ./pause
    ) >&2 || die "kubernetes: the build failed"
    ln -s kubernetes "$BUILD/kubectl"
    echo "$KUBERNETES_VERSION" >"$BUILD/version"
}

# Holds a server of WebSockets against RFC 6455. It is a program of Python 2.7, which Debian no longer has.
install_autobahn() {
    local python
    python=$(python2) || unavailable autobahn "there is no Python 2.7" "install it, as by pyenv install 2.7"
    "$python" -m pip --quiet --disable-pip-version-check install --no-warn-script-location --target "$BUILD/lib" \
        "autobahntestsuite==$AUTOBAHN_VERSION" >&2 ||
        unavailable autobahn "pip could not install it" "see that the Python package index is reachable"
    # its libraries share a namespace, which only a folder of packages can hold
    printf '#!%s\nimport os, site\nsite.addsitedir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))\n%s\n' \
        "$python" $'from autobahntestsuite import wstest\nwstest.run()' >"$BUILD/wstest"
    chmod 755 "$BUILD/wstest"
    echo "$AUTOBAHN_VERSION" >"$BUILD/version"
}

# Prints where Python 2.7 is, on the PATH or of pyenv.
python2() {
    local python
    for python in python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7; do
        if "$python" -c '' 2>/dev/null; then
            command -v -- "$python"
            return
        fi
    done
    return 1
}

# Holds a server of HTTP/2 against the RFCs.
install_h2spec() {
    need h2spec go "Go 1.25 or later"
    (
        cd -- "$TOOLS_DIR/h2spec"
        CGO_ENABLED=0 GOFLAGS=-buildvcs=false nice -n 5 go build -trimpath -ldflags='-s -w' -o "$BUILD/h2spec" \
            github.com/summerwind/h2spec/cmd/h2spec
    ) >&2 || die "h2spec: the build failed"
    echo "$H2SPEC_VERSION" >"$BUILD/version"
}

install_helm() {
    need helm go "Go 1.25 or later"
    note "Helm $HELM_VERSION; about 3 minutes on two cores"
    local module=helm.sh/helm/v3
    CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOBIN=$BUILD nice -n 5 go install -trimpath \
        -ldflags="-s -w -X $module/internal/version.version=$HELM_VERSION" "$module/cmd/helm@$HELM_VERSION" >&2 ||
        die "helm: the build failed"
    echo "$HELM_VERSION" >"$BUILD/version"
}

# Tests the API against its OpenAPI document.
install_schemathesis() {
    need schemathesis python3 "Python 3.10 or later, with venv"
    # the programs of a virtual environment name their folder, so it is made where it stays
    local venv
    venv=$(tool_dir schemathesis)/venv
    rm -rf -- "$venv"
    python3 -m venv "$venv" >&2 || unavailable schemathesis "no virtual environment" "install python3-venv"
    "$venv/bin/pip" --quiet --disable-pip-version-check install "schemathesis==$SCHEMATHESIS_VERSION" >&2 ||
        unavailable schemathesis "pip could not install it" "see that the Python package index is reachable"
    mv -- "$venv" "$BUILD/venv"
    echo "$SCHEMATHESIS_VERSION" >"$BUILD/version"
}

# A browser, and what drives it.
install_browser() {
    need browser node "Node 18 or later" npm "npm"
    apt_install browser chromium:chromium /usr/share/fonts/truetype/liberation:fonts-liberation
    (cd -- "$BUILD" && npm install --silent --no-audit --no-fund --ignore-scripts "playwright-core@$PLAYWRIGHT_VERSION") >&2 ||
        unavailable browser "npm could not install playwright-core" "see that the npm registry is reachable"
    chromium --version >"$BUILD/version"
}

install_node() {
    apt_install node "${NODE_PROGRAMS[@]}" /usr/lib/cni/bridge:containernetworking-plugins \
        /etc/ssl/certs/ca-certificates.crt:ca-certificates
    containerd --version >"$BUILD/version"
}

install_bench() {
    apt_install bench nginx:nginx wrk:wrk taskset:util-linux
    nginx -v 2>"$BUILD/version"
}

missing_node_packages() {
    local pair
    for pair in "${NODE_PROGRAMS[@]}" /usr/lib/cni/bridge:containernetworking-plugins; do
        present "${pair%%:*}" || echo "${pair##*:}"
    done | sort -u | tr '\n' ' '
}

present() {
    case $1 in
        /*) [[ -e $1 ]] ;;
        *) have "$1" ;;
    esac
}

# Maven goals in the build folder; libraries go to lib: maven NAME GOAL...
maven() {
    local name=$1
    shift
    (cd -- "$BUILD" && mvn -q -B -ntp -Dstyle.color=never "${@/#dependency:/org.apache.maven.plugins:maven-dependency-plugin:3.8.1:}" \
        -DincludeScope=runtime -DoutputDirectory=lib) >&2 || die "$name: Maven failed"
}

# a program must be there already: need TOOL PROGRAM WHAT-IT-IS...
need() {
    local tool=$1
    shift
    while (($#)); do
        have "$1" || unavailable "$tool" "$1 is not on the PATH" "install $2"
        shift 2
    done
}

# Installs the Debian packages whose program is missing: apt_install TOOL PROGRAM:PACKAGE...
apt_install() {
    local tool=$1 pair packages=()
    shift
    for pair in "$@"; do
        present "${pair%%:*}" || packages+=("${pair##*:}")
    done
    ((${#packages[@]})) || return 0
    have apt-get || unavailable "$tool" "not a Debian system" "install by hand: ${packages[*]}"
    [[ $EUID -eq 0 ]] || unavailable "$tool" "not root" "run as root: apt-get install --no-install-recommends ${packages[*]}"
    note "Debian packages: ${packages[*]}"
    exec 7>"$CACHE/locks/apt"
    flock 7
    if [[ -z $(find /var/lib/apt/lists -name '*_Packages*' -mmin -1440 -print -quit 2>/dev/null) ]]; then
        apt-get -qq update >&2 || note "apt-get update failed; going on with the lists that are there"
    fi
    keep_services_stopped
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install -y --no-install-recommends "${packages[@]}" >&2 || status=$?
    let_services_start
    flock -u 7
    ((status == 0)) || unavailable "$tool" "apt-get could not install ${packages[*]}" "see the messages above"
}

# Debian starts a service at installation unless this file says 101.
keep_services_stopped() {
    [[ ! -e /usr/sbin/policy-rc.d ]] || return 0
    printf '#!/bin/sh\n# flyweight: no service starts while the tests install theirs\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
}

let_services_start() {
    if grep -qs '^# flyweight:' /usr/sbin/policy-rc.d; then rm -f /usr/sbin/policy-rc.d; fi
}

main "$@"
