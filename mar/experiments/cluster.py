"""``--slurm KEY=VALUE …``: what is asked of a cluster, in submitit's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from mar.core.errors import UserError, unknown

Kind = Literal["slurm", "local", "debug"]
_COMMON = {"timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node"}  # names that every executor of submitit knows
_SAME = {"time": "timeout_min", "job_name": "name"}
_ONE_NODE = ("nodes", "tasks_per_node", "ntasks_per_node")
_NOT_TEXT = {"additional_parameters", "num_gpus", "use_srun", "stderr_to_stdout", "wckey"}  # no use from a command line
_LISTS = ("setup", "teardown", "srun_args")
_DAY = 24 * 60  # minutes
_OFTEN = 1000  # times that a job whose time was up is put back


@dataclass(frozen=True)
class Cluster:
    """Where jobs go.

    Attributes:
        kind: ``slurm``; ``local``: processes of this machine; ``debug``: one after the other, in this process.
        jobs: at most; None: one for each unfinished cell, within bounds.
        parameters: of submitit's AutoExecutor.
    """

    kind: Kind
    jobs: int | None
    parameters: dict[str, Any]

    def executor(self, folder: Path, name: str) -> Any:
        """submitit's executor, which keeps its files in ``folder``.

        Raises:
            UserError: there is no Slurm here, or a value is wrong.
        """
        import submitit

        defaults = {"name": name, "timeout_min": _DAY, "slurm_signal_delay_s": 300, "stderr_to_stdout": True}
        often = {"slurm_max_num_timeout": _OFTEN, "local_max_num_timeout": _OFTEN}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.kind, **often)
            executor.update_parameters(**{**defaults, **self.parameters})
        except RuntimeError:
            raise UserError(
                "no Slurm here (srun is not on the PATH): submit from a login node, or try it out on this machine with "
                "--slurm cluster=local"
            ) from None
        except (AssertionError, ValueError, TypeError) as error:
            raise UserError(f"--slurm: {' '.join(str(error).split())}") from None
        return executor


def read_cluster(pairs: Sequence[str]) -> Cluster:
    """The cluster of ``KEY=VALUE`` pairs: ``cluster``, ``jobs``, and submitit's names of sbatch's options.

    Raises:
        UserError: a key that does not exist, or a value that cannot be.
    """
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise UserError("--slurm wants submitit: pip install 'mar-orderings[slurm]'") from None
    known = (SlurmExecutor._valid_parameters() | _COMMON | {"name", "jobs", "cluster"}) - _NOT_TEXT - {*_ONE_NODE}
    kind, jobs, parameters = "slurm", None, {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        value = _value(text)
        if key in _ONE_NODE:
            raise UserError(f"--slurm {key}: a job is one worker on one node; jobs=N runs N of them, and --processes N "
                            "trains a cell on N GPUs of a node (gpus_per_node=N)")  # fmt: skip
        if key not in known:
            raise unknown("--slurm key", key, known)
        if not equals:
            raise UserError(f"--slurm is written KEY=VALUE, not {pair!r}")
        if key == "cluster":
            if value not in get_args(Kind):
                raise unknown("cluster", text, get_args(Kind))
            kind = cast(Kind, value)
        elif key == "jobs":
            jobs = _at_least_one(key, value)
        elif key in _LISTS:
            parameters.setdefault(f"slurm_{key}", []).append(text)
        else:
            name = _SAME.get(key, key)
            value = _at_least_one(f"{key} (minutes)", value) if name == "timeout_min" else value
            parameters[name if name in _COMMON or name == "name" else f"slurm_{name}"] = value
    return Cluster(kind, jobs, parameters)


def _at_least_one(key: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise UserError(f"--slurm {key} is a whole number of at least 1, not {value!r}")
    return value


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": None}.get(text.lower(), text)
