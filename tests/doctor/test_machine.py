from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.doctor import machine
from toolkit.doctor.machine import Limits, look_at_cores, look_at_shared_memory, read_limits, read_processor


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_v2_are_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/pod/container\n")
    files = {
        "cgroup.controllers": "cpu memory",
        "pod/cpu.max": "150000 100000",
        "pod/memory.max": "max",
        "pod/container/cpu.max": "max 100000",
        "pod/container/memory.max": "2147483648",
        "pod/container/memory.current": "1000",
    }
    root = write(tmp_path / "sys", files)
    assert read_limits(proc=proc, root=root) == Limits(2, 1.5, 2**31, 1000)


def test_a_container_that_shows_its_own_group_as_the_root(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("0::/../../somewhere/else\n")
    files = {"cgroup.controllers": "", "cpu.max": "50000 100000", "memory.max": "1024", "memory.current": "7"}
    assert read_limits(proc=proc, root=write(tmp_path / "sys", files)) == Limits(2, 0.5, 1024, 7)


def test_limits_of_v1(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    proc.write_text("4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n")
    files = {
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
        "memory/docker/1/memory.limit_in_bytes": "4096",
        "memory/docker/1/memory.usage_in_bytes": "12",
        "cpu/docker/1/cpu.cfs_quota_us": "200000",
        "cpu/docker/1/cpu.cfs_period_us": "100000",
        "cpu/cpu.cfs_quota_us": "-1",
        "cpu/cpu.cfs_period_us": "100000",
    }
    assert read_limits(proc=proc, root=write(tmp_path / "sys", files)) == Limits(1, 2.0, 4096, 12)


def test_no_groups(tmp_path: Path) -> None:
    assert read_limits(proc=tmp_path / "none", root=tmp_path / "none") == Limits(None, None, None, None)


def test_more_threads_than_the_container_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_limits", lambda: Limits(2, 0.5, None, None))
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    [check], facts = look_at_cores()
    assert (check.status, check.fix) == ("warning", ("export OMP_NUM_THREADS=1",))
    assert facts["usable"] == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    [check], _ = look_at_cores()
    assert check.status == "ok"


def test_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_limits", lambda: Limits(2, None, 2**30, 2**20))
    [check], facts = machine.look_at_memory()
    assert check.status == "warning"
    assert "1.0 GB usable (the container's limit)" in check.text
    assert facts["usable_bytes"] == 2**30


def test_flags_by_their_own_names(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Xeon\nflags\t\t: fpu avx avx2 avx512f amx_bf16\n\nflags\t: none\n")
    found = read_processor(cpuinfo)
    assert found.name == "Xeon"
    assert {name for name, there in found.flags.items() if there} == {"avx", "avx2", "avx512", "amx_bf16"}
    cpuinfo.write_text("Features\t: fp asimd bf16 i8mm\n")
    assert {name for name, there in read_processor(cpuinfo).flags.items() if there} == {"neon", "arm_bf16", "arm_i8mm"}


def test_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [check], facts = look_at_shared_memory(tmp_path / "none")
    assert (check.status, facts["exists"]) == ("ok", False)
    monkeypatch.setattr(machine, "LEAST_SHARED", 2**70)
    [check], _ = look_at_shared_memory(tmp_path)
    assert check.status == "warning"
    assert "--shm-size" in check.fix[0]
