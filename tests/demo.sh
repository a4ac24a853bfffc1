#!/usr/bin/env bash
# The demo: the whole system on a local Kubernetes with real MySQL, MongoDB, Redis and Kafka, shown step by step.
#
# The same steps are the end-to-end test. With KUBECONFIG set, that cluster is used: it must be able to get the images, and
# MYSQL_URL, MONGODB_URI, REDIS_URL and KAFKA_BROKERS must say where its pods find the stores.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."

# shellcheck source=tools/lib.sh
. tests/tools/lib.sh
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
# What is asked for a thousand answers a second is what is shipped.
readonly PROFILE=${PROFILE:-$([[ ${1:-} == traffic ]] && echo release || echo debug)}
readonly BIN=$CARGO_TARGET_DIR/$PROFILE IMAGES=$CACHE/images NAMESPACE=shop
# Another cluster than the local one.
GIVEN=${KUBECONFIG:-}
if [[ $GIVEN == "$(tests/tools/cluster.sh kubeconfig 2>/dev/null)" ]]; then GIVEN=; fi
readonly GIVEN
# What the project promises of a cluster that has the images; another cluster may have to pull them first.
readonly READY_WITHIN=$([[ -n $GIVEN ]] && echo 300s || echo 30s)

main() {
    case ${1:-} in
        run)
            local was_up=false
            if is_up; then was_up=true; fi
            $was_up || trap 'down' EXIT
            up
            step "the steps"
            "$BIN/demo" --namespace "$NAMESPACE"
            ;;
        traffic)
            [[ -n $GIVEN ]] || { trap 'down' EXIT && down; }
            NODES=2
            up
            tests/tools/image.sh --name flyweight/faulty:0.1.0 --out "$IMAGES/faulty.tar" "$BIN/faulty-dataplane"
            tests/tools/image.sh --name flyweight/dataplane:next --out "$IMAGES/next.tar" "$BIN/flyweight-dataplane"
            [[ -n $GIVEN ]] || tests/tools/cluster.sh import "$IMAGES/faulty.tar" "$IMAGES/next.tar"
            step "traffic"
            "$BIN/demo" --namespace "$NAMESPACE" --traffic
            ;;
        up)
            up
            tell_how
            ;;
        down) down ;;
        images) build && images ;;
        *)
            echo "usage: demo.sh run | traffic | up | down | images" >&2
            exit 2
            ;;
    esac
}

step() { printf '\n\033[1m== %s\033[0m\n' "$1" >&2; }

is_up() { [[ -n $GIVEN ]] || tests/tools/cluster.sh status >/dev/null 2>&1; }

up() {
    step "building"
    build
    images
    if [[ -z $GIVEN ]]; then
        step "a local Kubernetes"
        tests/tools/install.sh mysql redis kafka mongo kubernetes helm node
        tests/tools/cluster.sh up --nodes "${NODES:-1}"
        KUBECONFIG=$(tests/tools/cluster.sh kubeconfig)
        export KUBECONFIG
        tests/tools/cluster.sh import "$IMAGES/dataplane.tar" "$IMAGES/operator.tar"
        step "MySQL, MongoDB, Redis and Kafka"
        local line
        while read -r line; do export "${line?}"; done < <(tests/tools/cluster.sh stores up)
    fi
    if [[ -z $GIVEN ]]; then
        step "the chart of the version before, which the next step upgrades"
        helm upgrade --install flyweight "$(former_chart)" --namespace flyweight-system --create-namespace
    fi
    step "the chart"
    helm upgrade --install flyweight charts/flyweight --namespace flyweight-system --create-namespace --wait --timeout 2m
    if [[ -z $GIVEN ]]; then
        helm test flyweight --namespace flyweight-system --timeout 2m
        for crd in crds/generated/*.yaml; do
            kubectl diff --server-side --field-manager=demo --force-conflicts -f <(grep -v '^#' "$crd") >/dev/null ||
                { echo "the chart's upgrade left an old definition: $crd" >&2 && exit 1; }
        done
    fi
    step "the Secrets with the stores' addresses"
    kubectl create namespace "$NAMESPACE" --dry-run=client -o yaml | kubectl apply -f -
    secret mysql "$MYSQL_URL"
    secret mongodb "$MONGODB_URI"
    secret redis "$REDIS_URL"
    secret kafka "$KAFKA_BROKERS"
    "$BIN/run-sql" "$MYSQL_URL" configs/sql/stores.sql
    step "kubectl apply -f configs/samples"
    local start=$SECONDS
    kubectl apply --namespace "$NAMESPACE" -f configs/samples
    kubectl wait --namespace "$NAMESPACE" fws/shop --for=condition=Ready --timeout="$READY_WITHIN"
    step "Ready $((SECONDS - start)) s after it was applied"
    ! kubectl apply --namespace "$NAMESPACE" -f configs/samples | grep -v ' unchanged$' ||
        { echo "what is applied again without a change is changed" >&2 && exit 1; }
    kubectl get --namespace "$NAMESPACE" fws,fwp,ctier -o yaml | "$BIN/kubectl-flyweight" check -f -
}

build() {
    if [[ $PROFILE == release ]]; then
        cargo build --workspace --bins --release
    else
        cargo build --workspace --bins
    fi
}

images() { BIN_DIR=$BIN tests/tools/images.sh "$IMAGES"; }

# The newest packed chart. Covered is what Helm does: objects, rights and definitions of the version before become this one's. Not covered is the operator
# of the version before, for no program of it is kept: both charts run this version's.
former_chart() { find tests/charts -name '*.tgz' | sort -V | tail -1; }

helm() { "$(tool_dir helm)/helm" "$@"; }

secret() {
    kubectl create secret generic "shop-$1" --namespace "$NAMESPACE" --from-literal=url="$2" --dry-run=client -o yaml |
        kubectl apply -f -
}

down() {
    if [[ -n $GIVEN ]]; then
        kubectl delete namespace "$NAMESPACE" --ignore-not-found
        helm uninstall flyweight --namespace flyweight-system --ignore-not-found
    else
        tests/tools/cluster.sh down
    fi
}

tell_how() {
    local address
    address=$(kubectl get service shop --namespace "$NAMESPACE" -o jsonpath='{.spec.clusterIP}')
    cat >&2 <<TEXT

The shop is up. Try:
  export KUBECONFIG=$KUBECONFIG
  kubectl get fwp,ctier,fws --namespace $NAMESPACE
  curl http://$address/api/v1/products
End it with: make demo-down
TEXT
}

main "$@"
