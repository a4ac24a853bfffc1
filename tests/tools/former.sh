#!/usr/bin/env bash
# Builds the operator of the version before, once, and prints where it is. No program is kept in the repository: the newest packed chart in tests/charts
# says which version that was, and the history has its sources, at the commit that put the chart there.
#
# exit code: 0 done, 1 failed, 3 the history does not reach back so far (a shallow clone, an archive)
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
cd "$TOOLS_DIR/../.."

chart=$(former_chart)
commit=$(git log -1 --format=%H -- "$chart" 2>/dev/null || true)
[[ -n $commit ]] && git cat-file -e "$commit^{tree}" 2>/dev/null && [[ $(git rev-parse --is-shallow-repository) == false ]] || {
    echo "unavailable: the operator of $chart: its commit is not in the history; fetch all of it" >&2
    exit "$EXIT_UNAVAILABLE"
}
former=$CACHE/tools/former-${commit:0:12}
if [[ ! -e $former/.ready ]]; then
    step "the operator of the version before, ${commit:0:12}"
    rm -rf -- "$former"
    mkdir -p "$former/source"
    git archive "$commit" | tar -x -C "$former/source"
    # in a folder of its own, so that it takes no program's place; what both versions depend on is compiled anew, once
    CARGO_TARGET_DIR=$former/target cargo build --manifest-path "$former/source/Cargo.toml" --package flyweight-operator \
        --bin flyweight-operator >&2
    mv -- "$former/target/debug/flyweight-operator" "$former/"
    rm -rf -- "$former"/{source,target}
    touch "$former/.ready"
fi
echo "$former/flyweight-operator"
