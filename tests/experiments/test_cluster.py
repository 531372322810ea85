"""What is asked of a cluster: sbatch's options in submitit's names, and a clear line for everything else."""

from __future__ import annotations

import pytest

from mar.core.errors import UserError
from mar.experiments.slurm import Cluster, read_cluster

pytest.importorskip("submitit")


def test_keys_are_those_of_sbatch_and_our_own():
    pairs = ["partition=gpu", "gpus_per_node=1", "time=240", "jobs=8", "setup=module load cuda", "setup=ulimit -n 9"]
    expected = {"slurm_partition": "gpu", "gpus_per_node": 1, "timeout_min": 240}
    assert read_cluster(pairs) == Cluster("slurm", 8, {**expected, "slurm_setup": ["module load cuda", "ulimit -n 9"]})
    assert read_cluster(["cluster=local"]) == Cluster("local", None, {})


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("partitoin=gpu", "did you mean 'partition'"),
        ("partition", "written KEY=VALUE"),
        ("time=1-00:00:00", "minutes"),
        ("jobs=0", "at least 1"),
        ("cluster=lsf", "choose from local, slurm"),
        ("nodes=2", "--processes N"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_what_would_work(pair: str, message: str):
    with pytest.raises(UserError, match=message):
        read_cluster([pair])


def test_without_slurm_it_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="cluster=local"):
        read_cluster(["partition=gpu"]).executor(tmp_path, "x")


def test_a_value_that_submitit_refuses_is_one_line(tmp_path):
    with pytest.raises(UserError, match="mem_gb"):
        read_cluster(["cluster=local", "mem_gb=much"]).executor(tmp_path, "x")
