#!/usr/bin/env bash
# Builds the images of the data plane and of the operator as archives, without a container engine.
# usage: images.sh DIR [TAG]     BIN_DIR has the programs; the tag is 0.1.0 where none is given
#
# As in Dockerfile: without arguments the data plane serves the samples on embedded stores.
set -euo pipefail
cd "$(dirname -- "${BASH_SOURCE[0]}")/../.."

readonly DIR=${1:?usage: images.sh DIR [TAG]} BIN=${BIN_DIR:?say where the programs are} TAG=${2:-0.1.0}
readonly SAMPLES=/usr/share/flyweight/samples DATA=/var/lib/flyweight

mkdir -p "$DIR"
tests/tools/image.sh --name "flyweight/dataplane:$TAG" --out "$DIR/dataplane.tar" --folder "configs/samples=$SAMPLES" --writable "$DATA" \
    --command "[\"serve\",\"--manifests\",\"$SAMPLES\",\"--data-dir\",\"$DATA\"]" "$BIN/flyweight-dataplane"
tests/tools/image.sh --name "flyweight/operator:$TAG" --out "$DIR/operator.tar" --command '["run"]' "$BIN/flyweight-operator"
