#!/usr/bin/env bash
# Checks the documents and builds their site with MkDocs, which it installs into the cache when missing.
# usage: tests/tools/docs.sh [DIR]     (the site goes to DIR; left out, to ./site)
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
cd "$TOOLS_DIR/../.."

readonly VENV=$CACHE/tools/mkdocs-$MKDOCS_VERSION SITE=${1:-site}

main() {
    [[ -x $VENV/bin/mkdocs ]] || install
    tests/docs.py
    "$VENV/bin/mkdocs" build --strict --quiet --site-dir "$(realpath -m "$SITE")"
    tests/docs.py --site "$SITE"
    ok "the site is in $SITE: open $SITE/index.html"
}

install() {
    step "MkDocs $MKDOCS_VERSION"
    rm -rf -- "$VENV"
    python3 -m venv "$VENV"
    local packages=("mkdocs==$MKDOCS_VERSION" "Pygments==$PYGMENTS_VERSION")
    if ! "$VENV/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"; then
        rm -rf -- "$VENV"
        die "MkDocs cannot be installed: pip says why"
    fi
}

main
