#!/usr/bin/env bash
# The chart without a cluster: lint, and templates with the default values and with every value changed.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/lib.sh
. tests/tools/lib.sh

if ! tests/tools/install.sh --check helm >/dev/null; then
    echo "skipped: the chart: helm is not installed: run tests/tools/install.sh helm" >&2
    [[ ${CI:-} != true ]]
    exit
fi
helm=$(tool_dir helm)/helm
# a helm that was built from source believes in an old cluster
readonly KUBE_VERSION=1.34.0
"$helm" lint --strict charts/flyweight
"$helm" template flyweight charts/flyweight --kube-version "$KUBE_VERSION" --namespace flyweight-system >/dev/null
for values in charts/flyweight/ci/*.yaml; do
    [[ -e $values ]] || continue
    "$helm" lint --strict charts/flyweight --values "$values"
    "$helm" template flyweight charts/flyweight --kube-version "$KUBE_VERSION" --namespace flyweight-system --values "$values" >/dev/null
done
render() { "$helm" template flyweight charts/flyweight --kube-version "$KUBE_VERSION" "$@"; }
fail() {
    echo "$*" >&2
    exit 1
}
# what is off by default is there when it is asked for, and the chart of the version before can still be read
everything=$(render --values charts/flyweight/ci/everything.yaml)
for kind in ServiceMonitor PodMonitor PodDisruptionBudget Role; do
    grep -qx "kind: $kind" <<<"$everything" || fail "the chart has no $kind"
done
# monitors: only where they are enabled, and where the cluster knows their kind or they are forced
for monitor in serviceMonitor podMonitor; do
    kind=${monitor^}
    known=(--api-versions "monitoring.coreos.com/v1/$kind")
    on=(--set "metrics.$monitor.enabled=true")
    grep -qx "kind: $kind" < <(render "${on[@]}" "${known[@]}") || fail "no $kind where the cluster knows it"
    grep -qx "kind: $kind" < <(render "${on[@]}" --set "metrics.$monitor.force=true") || fail "no $kind where it is forced"
    ! grep -qx "kind: $kind" < <(render "${on[@]}") || fail "a $kind that the cluster does not know: the install would fail"
    ! grep -qx "kind: $kind" < <(render "${known[@]}" --set "metrics.$monitor.force=true") || fail "a $kind that nobody enabled"
done
# the notes say what keeps a service from being deleted once there is no operator; `helm template` does not print them
for part in flyweight.dev/drain '"finalizers":null' "delete fws --all"; do
    grep -qF -- "$part" charts/flyweight/templates/NOTES.txt || fail "NOTES.txt does not say: $part"
done
if grep -qx "kind: ClusterRole" < <("$helm" template flyweight charts/flyweight --kube-version "$KUBE_VERSION" --values charts/flyweight/ci/everything.yaml --set rbac.aggregate=false); then
    echo "named namespaces must not need rights in the whole cluster" >&2
    exit 1
fi
for former in tests/charts/*.tgz; do
    "$helm" template flyweight "$former" --kube-version "$KUBE_VERSION" >/dev/null
done
# a value that the schema does not know is refused
if "$helm" template flyweight charts/flyweight --kube-version "$KUBE_VERSION" --set noSuchValue=1 >/dev/null 2>&1; then
    echo "the chart took a value that it does not know" >&2
    exit 1
fi
