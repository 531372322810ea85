#!/usr/bin/env bash
# Build README.md, CONTRIBUTING.md, CHANGELOG.md, docs/ and results/ as a site into a folder (default: site). Every warning is an error.
out="$(realpath -m "${1:-site}")"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" docs
pages="$(mktemp -d)"
trap 'rm -rf "$pages"' EXIT
git ls-files -z README.md CONTRIBUTING.md CHANGELOG.md CITATION.cff docs results | xargs -0 cp --parents -t "$pages"
mv "$pages/README.md" "$pages/index.md"
PYTHONPATH="$PWD" python -m sphinx -W --keep-going -q -b html -c "$pages/docs" -d "$pages/.doctrees" "$pages" "$out"
# Interactive reports are complete pages: copy them beside the page of their folder.
(cd "$pages" && find results -name index.html -exec cp --parents -t "$out" {} +)
echo "$out/index.html"
