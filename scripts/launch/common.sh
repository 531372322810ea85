# Sourced by the launch files: the environment, the number of GPUs, and a launcher that passes on how the training ended.
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" ""
cd "$caller"  # paths in overrides are meant from there
gpus="${GPUS:-$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)}"
[ "$gpus" -ge 1 ] || gpus=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(($(nproc) / gpus > 0 ? $(nproc) / gpus : 1))}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"  # seconds to save in
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # a restart meets at a new place, not at addresses of processes that died

# One process. What ended with 2 has said why, and would say it again: when torchrun starts it again, it does nothing.
worker='
  if [ -e "$MAR_REFUSED" ]; then exit 0; fi
  trap : TERM INT  # for the training to act on
  python -u -m mar train "$@"
  code=$?
  if [ "$code" = 2 ]; then touch "$MAR_REFUSED"; fi
  exit "$code"'

# torchrun ends with 1 whatever happened. Here it is 2 after a fault with a line of its own, and 143 after SIGTERM or Ctrl-C,
# when the run has saved.
launch() { # torchrun's options, --, mar train's arguments
  local stopped="" code child options=() aside
  while [ "$1" != -- ]; do options+=("$1") && shift; done
  aside="$(mktemp -d)"
  export MAR_REFUSED="$aside/refused"
  torchrun --max-restarts "${RESTARTS:-1}" "${options[@]}" --no-python bash -c "$worker" mar "${@:2}" &
  child=$!
  trap 'stopped=143; kill -TERM "$child"' TERM INT
  while wait "$child" && code=0 || code=$?; kill -0 "$child" 2>/dev/null; do :; done # a trapped signal ends a wait
  if [ -e "$MAR_REFUSED" ]; then code=2; fi
  rm -r "$aside"
  exit "${stopped:-$code}"
}
