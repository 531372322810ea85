# The other scripts source this file: choose a virtual environment and install the project into it. It is MAR_VENV, or the
# active environment if these scripts made it for this checkout, or .venv of the checkout. An active environment of another
# project is left alone; it is used as it is if this checkout is installed in it and no extras are needed.
# Scripts run in the checkout. Paths given by the user are relative to the user's folder: this file makes RUN, RUNS, OUT and
# COSTS absolute, and `from_caller` an argument.
# usage: source scripts/environment.sh [EXTRAS]
set -euo pipefail
caller="$PWD"
from_caller() { case "$1" in /*) echo "$1" ;; *) echo "$caller/$1" ;; esac; }
for name in RUN RUNS OUT COSTS; do
  [ -z "${!name:-}" ] || export "$name=$(from_caller "${!name}")"
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}" active="${VIRTUAL_ENV:-}" installs=1

made_here() { # true if these scripts made an environment for this checkout: a stamp of theirs names it
  local stamp
  for stamp in "$1"/.mar-orderings-*; do
    case "$(cat "$stamp" 2>/dev/null)" in "$PWD "*) return 0 ;; esac
  done
  [ "$1" -ef .venv ]
}

holds_checkout() {
  [ "$("$1/bin/python" -I -c 'import importlib.util as u; print(u.find_spec("mar").origin)' 2>/dev/null)" -ef mar/__init__.py ]
}

if [ -n "${MAR_VENV:-}" ]; then
  VIRTUAL_ENV="$(from_caller "$MAR_VENV")"
elif [ -z "$active" ] || { ! made_here "$active" && { [ -n "$extras" ] || ! holds_checkout "$active"; }; }; then
  VIRTUAL_ENV="$PWD/.venv"
elif ! made_here "$active"; then
  installs=""
fi
if [ ! -x "$VIRTUAL_ENV/bin/python" ]; then
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
  echo "making a virtual environment in $VIRTUAL_ENV with $("$python" --version)" >&2
  "$python" -m venv "$VIRTUAL_ENV"
fi
note=""
[ -z "$active" ] || [ "$active" -ef "$VIRTUAL_ENV" ] || note=", not the active $active (MAR_VENV=$active uses that one)"
echo "environment: $VIRTUAL_ENV$note" >&2
export VIRTUAL_ENV PATH="$VIRTUAL_ENV/bin:$PATH"
unset PYTHONHOME

# Skip the installation if this folder, these extras and these requirements are installed.
stamp="$VIRTUAL_ENV/.mar-orderings-${extras//,/-}"
wanted="$PWD $(cat pyproject.toml constraints.txt | cksum)"
if [ -n "$installs" ] && [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
  echo "installing (a minute or two the first time)" >&2
  python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}" 2> >(grep -v '^WARNING: Location' >&2)
  printf '%s' "$wanted" > "$stamp"
fi
