#!/usr/bin/env bash
# Builds README.md, docs/ and results/ as a site into a folder (default: site); a broken link is an error.
out="$(realpath -m "${1:-site}")"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" docs
MAR_PAGES="$(mktemp -d)"
trap 'rm -rf "$MAR_PAGES"' EXIT
export MAR_PAGES
git ls-files -z README.md docs results | xargs -0 cp --parents -t "$MAR_PAGES"
mkdocs build --quiet --strict --site-dir "$out"
