"""Free memory: of the machine, and of the control groups above this process."""

from __future__ import annotations

import sys

from mar.core.signals import available_memory


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_smallest_limit_of_machine_and_groups_counts(tmp_path):
    assert available_memory(tmp_path) == sys.maxsize  # not Linux
    write(tmp_path, proc__meminfo="MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    assert available_memory(tmp_path) == 8000 * 1024
    write(tmp_path, proc__self__cgroup="0::/job/step\n")
    group = tmp_path / "sys/fs/cgroup/job"
    write(group, **{"memory.max": "5000000", "memory.current": "2000000", "memory.stat": "inactive_file 500000\nx 1"})
    write(group / "step", **{"memory.max": "max", "memory.current": "1", "memory.stat": ""})
    assert available_memory(tmp_path) == 3_500_000


def test_version_1_of_control_groups_counts(tmp_path):
    write(tmp_path, proc__meminfo="MemAvailable: 8000 kB\n", proc__self__cgroup="4:memory:/a\n1:cpu:/a\n0::/\n")
    files = {"memory.limit_in_bytes": "4000", "memory.usage_in_bytes": "1000", "memory.stat": "total_inactive_file 10"}
    write(tmp_path / "sys/fs/cgroup/memory/a", **files)
    assert available_memory(tmp_path) == 3_010
