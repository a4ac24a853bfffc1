#!/usr/bin/env bash
# Builds what a release has into dist, and pushes nothing: `make release`.
#
# usage: release/build.sh [programs] [images] [chart] [sbom] [index]     without words all of them
#   programs    archives for this machine's system; BIN_DIR has programs that are built already
#   images      by docker buildx for amd64 and arm64, with SBOM and provenance; without it archives for this architecture
#   chart       the packed chart, and flyweight.yaml for kubectl
#   sbom        what the programs are made of, as CycloneDX
#   index       the manifest for Krew, the formula for Homebrew, and SHA256SUMS, of the archives that are in dist
# RELEASE_URL is where the archives will be. Signatures are made by .github/workflows/release.yaml alone.
# What cannot be made here is said, and the exit code is 0: the workflow has all that it needs.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=../tests/tools/lib.sh
. tests/tools/lib.sh

VERSION=$(sed -nE 's/^version = "(.+)"$/\1/p' Cargo.toml | head -n 1)
ARCH=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
readonly VERSION ARCH OUT=${OUT:-dist}
readonly RELEASE_URL=${RELEASE_URL:-https://github.com/OWNER/flyweight/releases/download/v$VERSION}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}

main() {
    mkdir -p "$OUT"
    local parts=("$@") part
    ((${#parts[@]})) || parts=(programs images chart sbom index)
    for part in "${parts[@]}"; do
        case $part in
            programs | images | chart | sbom | index) step "$part" && "$part" ;;
            *) usage_error "not a part of a release: $part" ;;
        esac
    done
}

# Where the programs are; they are built where nobody named a folder.
bin_dir() {
    if [[ -z ${BIN_DIR:-} ]]; then
        cargo build --release --locked --package flyweight-dataplane --package flyweight-operator --bins >&2
        BIN_DIR=$CARGO_TARGET_DIR/release
    fi
    echo "$BIN_DIR"
}

programs() {
    local bin name=flyweight-$VERSION-linux-$ARCH work program
    bin=$(bin_dir)
    work=$(mktemp -d)
    mkdir "$work/$name" "$work/plugin"
    for program in flyweight-dataplane flyweight-operator kubectl-flyweight; do
        cp -- "$bin/$program" "$work/$name/"
        if [[ $(ldd -- "$bin/$program" 2>/dev/null) == *'=>'* ]]; then
            note "$program is not static: it needs a glibc as new as this machine's; the workflow builds static ones"
        fi
    done
    cp -R -- LICENSE CHANGELOG.md configs/samples "$work/$name/"
    cp -- LICENSE "$work/$name/kubectl-flyweight" "$work/plugin/"
    pack "$work" "$name" "$OUT/$name.tar.gz"
    pack "$work/plugin" . "$OUT/kubectl-$name.tar.gz"
    rm -rf -- "$work"
}

# The same input gives the same bytes.
pack() {
    tar --create --directory="$1" --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner "$2" | gzip -n9 >"$3"
    ok "$3: $(du -h -- "$3" | cut -f1)"
}

images() {
    local target
    if have docker && docker buildx version >/dev/null 2>&1 && docker info >/dev/null 2>&1; then
        for target in dataplane operator; do
            docker buildx build --platform linux/amd64,linux/arm64 --provenance=mode=max --sbom=true --target "$target" \
                --tag "flyweight/$target:$VERSION" --output "type=oci,dest=$OUT/$target-$VERSION.oci.tar" .
        done
        return
    fi
    note "there is no docker buildx with a running engine: images for $ARCH alone, without SBOM and provenance"
    BIN_DIR=$(bin_dir) tests/tools/images.sh "$OUT" "$VERSION"
}

chart() {
    if ! tests/tools/install.sh --check helm >/dev/null; then
        note "skipped: the chart: helm is not installed: run tests/tools/install.sh helm"
    else
        "$(tool_dir helm)/helm" package charts/flyweight --destination "$OUT" >&2
    fi
    { cat deploy/base/namespace.yaml && echo "---" && cat deploy/base/operator.yaml; } >"$OUT/flyweight.yaml"
    ok "$OUT/flyweight.yaml"
}

sbom() { release/sbom.py >"$OUT/flyweight-$VERSION.cdx.json" && ok "$OUT/flyweight-$VERSION.cdx.json"; }

index() {
    filled release/krew.yaml >"$OUT/krew-flyweight.yaml"
    filled release/formula.rb >"$OUT/flyweight.rb"
    (cd "$OUT" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS)
    ok "$OUT: $(wc -l <"$OUT/SHA256SUMS") files"
}

# A template with its version, its address, and the checksums of archives; those that are not in dist are zeros.
filled() {
    local text name sum
    text=$(sed "s|@VERSION@|$VERSION|g; s|@URL@|$RELEASE_URL|g" "$1")
    while [[ $text =~ @SHA256:([^@]+)@ ]]; do
        name=${BASH_REMATCH[1]} sum=$(printf '0%.0s' {1..64})
        if [[ -e $OUT/$name ]]; then
            sum=$(sha256sum "$OUT/$name" | cut -d' ' -f1)
        else
            note "$1: $name is not in $OUT: its checksum is left at zeros"
        fi
        text=${text//"${BASH_REMATCH[0]}"/$sum}
    done
    echo "$text"
}

main "$@"
