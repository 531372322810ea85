# The other scripts source this file: activate a virtual environment (create .venv if no environment is active) and install the
# project. Scripts run in the checkout. Paths given by the user are relative to the user's folder: this file makes RUN, RUNS,
# OUT and COSTS absolute, and `from_caller` an argument.
# usage: source scripts/environment.sh [EXTRAS]
set -euo pipefail
caller="$PWD"
from_caller() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }
for name in RUN RUNS OUT COSTS; do
  [ -z "${!name:-}" ] || export "$name=$(from_caller "${!name}")"
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"

if [ -z "${VIRTUAL_ENV:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    python=""
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
      if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$candidate"
        break
      fi
    done
    if [ -z "$python" ]; then
      echo "Python 3.11 or newer was not found: install it, or set PYTHON to it" >&2
      exit 1
    fi
    echo "making a virtual environment in .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  source .venv/bin/activate
fi

# Skip the installation if this folder, these extras and these requirements are installed.
stamp="$VIRTUAL_ENV/.mar-orderings-${extras//,/-}"
wanted="$(pwd) $(cat pyproject.toml constraints.txt | cksum)"
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  echo "installing (a minute or two the first time)"
  python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}" 2> >(grep -v '^WARNING: Location' >&2)
  printf '%s' "$wanted" > "$stamp"
fi
