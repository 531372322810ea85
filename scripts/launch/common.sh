# Sourced by the launch files: the environment, the number of GPUs, and a launcher that passes a stop on.
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" ""
gpus="${GPUS:-$({ nvidia-smi -L 2>/dev/null || true; } | wc -l)}"
[ "$gpus" -ge 1 ] || gpus=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(($(nproc) / gpus > 0 ? $(nproc) / gpus : 1))}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"  # seconds to save in
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # a restart meets at a new place, not at addresses of processes that died

# torchrun, which ends with 1 whatever happened: SIGTERM and Ctrl-C end with 143 here, after the run has saved.
launch() {
  local stopped="" code child
  torchrun --max-restarts "${RESTARTS:-1}" "$@" &
  child=$!
  trap 'stopped=143; kill -TERM "$child"' TERM INT
  while wait "$child" && code=0 || code=$?; kill -0 "$child" 2>/dev/null; do :; done # a trapped signal ends a wait
  exit "${stopped:-$code}"
}
