#!/usr/bin/env bash
# Proves the operator on a control plane of this machine without nodes: crashes, faults of the API server, random changes, every field.
#
# usage: operator.sh [--soak] [--seed NUMBER] [plugin|certificates|migrations|rights|drift|crash|faults|fields|transitions|lease|steady|lost|scale]...
#        operator.sh traffic     1,000 requests a second through everything that replaces pods, on a cluster of two nodes
# With KUBECONFIG set, that cluster is used: no other operator may work in it.
# The last two parts belong to --soak; scale measures the operator as it is shipped, in a release build.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/lib.sh
. tests/tools/lib.sh
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

if [[ ${1:-} == traffic ]]; then exec tests/demo.sh traffic; fi
cargo build --workspace --bins
if [[ -z ${FLYWEIGHT_OPERATOR:-} && ("$*" == *--soak* || "$*" == *scale*) ]]; then
    cargo build --workspace --release --bin flyweight-operator
    export FLYWEIGHT_OPERATOR=$CARGO_TARGET_DIR/release/flyweight-operator
fi
if [[ -z ${KUBECONFIG:-} ]]; then
    tests/tools/install.sh kubernetes node
    trap 'tests/tools/cluster.sh down' EXIT
    tests/tools/cluster.sh up --control-plane-only
    KUBECONFIG=$(tests/tools/cluster.sh kubeconfig)
    export KUBECONFIG
fi
tests/tools/install.sh helm
PATH=$(tool_dir helm):$PATH
kubectl apply --server-side -f crds/generated
kubectl wait --for=condition=Established --timeout=60s -f crds/generated
"$CARGO_TARGET_DIR/debug/prove-operator" "$@"
