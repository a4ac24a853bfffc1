#!/usr/bin/env bash
# Adds the entity `coupon` to a copy of the tree: one file of the model and one migration, each with its line in
# the table, and nothing else. It must then be served, listed, searched, evented and documented, and a gateway
# before groups must know its routes.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

ROOT=$PWD
CACHE=${FLYWEIGHT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flyweight}
TREE=$CACHE/coupon-tree
RUN=$(mktemp -d)
PORT=$(tests/tools/port.sh)
ADMIN_PORT=$(tests/tools/port.sh)
readonly ROOT CACHE TREE RUN PORT ADMIN_PORT

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
SERVER='' FEED=''

main() {
    trap finish EXIT
    copy
    cd "$TREE"
    add
    cargo run --quiet --package flyweight-crds --features kube --bin crdgen
    cargo build --quiet --package flyweight-dataplane --bin flyweight-dataplane
    serve
    is_served
    cargo test --quiet --package flyweight-dataplane --lib -- \
        http::tests::groups::every_route
    echo " ok an entity is one file of the model and one migration"
}

copy() {
    rm -rf -- "$TREE"
    mkdir -p "$TREE"
    git ls-files -z --cached --others --exclude-standard | while IFS= read -rd '' file; do
        [[ ! -e $file ]] || printf '%s\0' "$file"
    done | tar --create --null --files-from=- | tar --extract --directory "$TREE"
}

add() {
    cp "$ROOT/tests/coupon/coupon.rs" model/src/entities/
    sed -i 's|^    /// A declared table or collection.|    /// Coupons, in SQL.\n    Coupon: coupon,\n&|' \
        model/src/entities.rs
    cp "$ROOT/tests/coupon/m0015_coupons.rs" store/src/sql/migrations/
    sed -i 's|^mod m0014_counted;|&\nmod m0015_coupons;|; s|^    m0014_counted::MIGRATION,|&\n    m0015_coupons::MIGRATION,|' \
        store/src/sql/migrations.rs
    # the test's larger group has it, whose description of the API comes first
    sed -i 's|const FIRST: .&str; 4. = ."users"|const FIRST: [\&str; 5] = ["users", "coupons"|' \
        dataplane/src/http/tests/groups.rs
    mkdir "$RUN/manifests"
    cp configs/samples/*.yaml tests/coupon/coupons.yaml "$RUN/manifests"
    sed -i 's|^    - name: users$|&\n    - name: coupons|' "$RUN/manifests/service.yaml"
}

serve() {
    "$CARGO_TARGET_DIR/debug/flyweight-dataplane" serve --manifests "$RUN/manifests" --data-dir "$RUN/data" \
        --port "$PORT" --admin-port "$ADMIN_PORT" --drain-delay 0s >"$RUN/out" 2>"$RUN/err" &
    SERVER=$!
    until grep -q "served at" "$RUN/out"; do
        kill -0 "$SERVER" || fail "it ended"
        read -rt 0.1 <> <(:) || true # a tenth of a second
    done
}

is_served() {
    curl --silent --no-buffer --max-time 60 "http://localhost:$PORT/api/v1/events/stream?topics=coupons" >"$RUN/feed" &
    FEED=$!
    until grep -q . "$RUN/feed"; do
        kill -0 "$FEED" || fail "the feed ended"
        read -rt 0.1 <> <(:) || true # a tenth of a second
    done
    expect '"version":1' -X POST coupons -H 'content-type: application/json' \
        -d '{"id":"spring10","name":"Spring","percent":10,"campaign":"spring"}'
    expect '"percent":10' coupons/spring10
    expect '"errors":[{"field":"percent"' -X POST coupons -H 'content-type: application/json' \
        -d '{"name":"Free","percent":101}'
    expect '"id":"spring10"' coupons
    expect '"id":"spring10"' 'coupons/search?q=PRIN'
    expect '"items":[]' 'coupons/search?q=autumn'
    expect '"id":"spring10"' coupons/campaign/spring
    expect '/api/v1/coupons/search' ../../openapi.json
    expect '"percent"' ../../schemas/coupon_created
    expect '"entity":"coupon"' 'audit?entity=coupon'
    until grep -q coupon_created "$RUN/feed"; do
        kill -0 "$FEED" || fail "no event came: $(cat "$RUN/feed")"
        read -rt 0.1 <> <(:) || true # a tenth of a second
    done
}

# Calls the API with the arguments of curl, the path among them, and looks for a text in the answer.
expect() {
    local text=$1 args=() answer
    shift
    while (($#)); do
        case $1 in
            -X | -H | -d) args+=("$1" "$2") && shift ;;
            *) args+=("http://localhost:$PORT/api/v1/$1") ;;
        esac
        shift
    done
    answer=$(curl --silent --show-error --max-time 10 "${args[@]}")
    grep -qF -- "$text" <<<"$answer" || fail "no $text in the answer of ${args[*]}: $answer"
}

fail() {
    printf '\033[31mfailed:\033[0m %s\n' "$1" >&2
    tail -n 20 "$RUN/err" >&2
    exit 1
}

finish() {
    [[ -z $FEED ]] || kill "$FEED" 2>/dev/null || true
    [[ -z $SERVER ]] || kill -KILL "$SERVER" 2>/dev/null || true
    rm -rf -- "$RUN" "$TREE"
    # the programs of this tree in their place again
    (cd "$ROOT" && cargo build --quiet --workspace --bins)
}

main "$@"
