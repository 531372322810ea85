#!/usr/bin/env bash
# Build README.md, CONTRIBUTING.md, CHANGELOG.md, docs/ and results/ as a site into a folder (default: site). Every warning is an error.
out="$(realpath -m "${1:-site}")"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" docs
pages="$(mktemp -d)"
trap 'rm -rf "$pages"' EXIT
git ls-files -z README.md CONTRIBUTING.md CHANGELOG.md CITATION.cff docs results | xargs -0 cp --parents -t "$pages"
mv "$pages/README.md" "$pages/index.md"
PYTHONPATH="$PWD" python -m sphinx -W --keep-going -q -b html -c "$pages/docs" -d "$pages/.doctrees" "$pages" "$out"
# Interactive reports are complete pages, beside the page of their folder.
PYTHONPATH="$PWD" python - "$out" <<'PYTHON'
import sys
from pathlib import Path

from mar.experiments.result import read_result
from mar.reports.columns import in_asked_unit
from mar.reports.page import write_page

for folder in sorted({path.parent for path in Path("results").rglob("result.json*")}):
    write_page(in_asked_unit(read_result(folder)), folder, Path(sys.argv[1], folder, "index.html"))
PYTHON
echo "$out/index.html"
