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
# a value that the schema does not know is refused
if "$helm" template flyweight charts/flyweight --kube-version "$KUBE_VERSION" --set noSuchValue=1 >/dev/null 2>&1; then
    echo "the chart took a value that it does not know" >&2
    exit 1
fi
