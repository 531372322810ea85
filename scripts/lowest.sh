#!/usr/bin/env bash
# Install the oldest versions that pyproject.toml allows in a new environment, and run the smoke tests there (a download of 3 GB).
# usage: scripts/lowest.sh [FOLDER]      FOLDER: of the environment; default: a temporary one
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
environment="${1:-$(mktemp -d)/environment}"
"${PYTHON:-python3}" -m venv --clear "$environment"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --resolution lowest-direct -e '.[test]'
exec "$environment/bin/python" -m pytest tests/test_smoke.py -m smoke -p no:cacheprovider
