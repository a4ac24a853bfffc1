#!/usr/bin/env bash
# Builds the data plane of a former commit and proves that this one takes over from it under traffic: upgrade.sh COMMIT
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
. tests/tools/lib.sh

(($# == 1)) || usage_error "upgrade.sh COMMIT"
commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "$1 is no commit of this clone: fetch its history"
former=$CACHE/former/$commit
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

if [[ ! -x $former/flyweight-dataplane ]]; then
    step "building ${1}: some minutes"
    source=$(mktemp -d)
    trap 'git worktree remove --force "$source"' EXIT
    git worktree add --quiet --detach "$source" "$commit"
    (cd "$source" && CARGO_TARGET_DIR=$CACHE/former/target cargo build --workspace --bin flyweight-dataplane)
    mkdir -p "$former"
    cp -- "$CACHE/former/target/debug/flyweight-dataplane" "$former/"
fi
step "from $1 to this release, under traffic"
tests/tools/install.sh mysql mongo redis kafka
cargo build --workspace --bins
FORMER_BIN=$former/flyweight-dataplane cargo test --workspace --test suites -- --ignored --test-threads=1 --nocapture upgrade::
