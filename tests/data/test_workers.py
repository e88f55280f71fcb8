from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from toolkit.data import workers
from toolkit.data.workers import SHARED_MEMORY, Workers
from toolkit.errors import UserError

needs_shared_memory = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm here")


class Make:
    """Arrays that name the item and the process; some items misbehave."""

    def __call__(self, item: int | str) -> dict[str, object]:
        if isinstance(item, str):  # dies the first time
            if not Path(item).exists():
                Path(item).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            item = 7
        if item == -1:
            raise UserError("picture.jpg: not a picture that can be read")
        if item == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {
            "image": np.full((3, 64, 64), item, np.float32),
            "masks": [np.full((item % 3, 8, 8), 1, np.uint8)],
            "pid": os.getpid(),
        }


def blocks(training: int | None = None) -> set[str]:
    pattern = f"{workers.prefix(training)}*"
    return {path.name for path in SHARED_MEMORY.glob(pattern)} if SHARED_MEMORY.is_dir() else set()


@pytest.fixture
def two():
    said: list[str] = []
    pool = Workers(Make(), 2, say=said.append)
    pool.said = said
    yield pool
    pool.close()


def test_results_come_in_order_and_leave_no_memory_behind(two):
    before = blocks()
    results = list(two.map(range(20)))
    assert [int(result["image"].mean()) for result in results] == list(range(20))
    assert [result["masks"][0].shape for result in results] == [(i % 3, 8, 8) for i in range(20)]
    assert os.getpid() not in {result["pid"] for result in results}
    results[0]["image"][:] = 5  # writable, as any array
    two.close()
    assert blocks() == before
    assert two.said == []
    assert len(list(two.map(range(3)))) == 3  # it starts again


def test_an_error_of_a_worker_arrives_and_the_next_epoch_goes_on(two):
    results = two.map([1, 2, -1, 3])
    assert int(next(results)["image"][0, 0, 0]) == 1
    assert int(next(results)["image"][0, 0, 0]) == 2
    with pytest.raises(UserError, match=r"picture\.jpg: not a picture"):
        next(results)
    assert len(list(two.map(range(3)))) == 3


def test_what_a_dead_worker_had_in_hand_is_made_anew(two, tmp_path):
    once = tmp_path / "died"
    results = [int(result["image"].mean()) for result in two.map([1, 2, str(once), 3, 4])]
    assert once.exists()
    assert results == [1, 2, 7, 3, 4]
    assert len(two.said) == 1
    assert "made anew" in two.said[0]


def test_workers_that_die_again_and_again_are_said_in_one_line(two):
    with pytest.raises(UserError, match="ended from outside, most often for lack of memory; lower") as error:
        list(two.map([1, -2, 3]))
    assert "\n" not in str(error.value)
    two.close()
    assert len(list(two.map(range(3)))) == 3


@pytest.mark.skipif(os.name == "nt", reason="killing is another thing there")
def test_workers_end_with_a_process_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from tests.data.test_workers import Make\n"
        "from toolkit.data.workers import Workers\n"
        "results = Workers(Make(), 2, say=print).map(range(100))\n"
        "print(*{next(results)['pid'] for _ in range(20)}, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert pids
        process.kill()
    for _ in range(600):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids) and not blocks(process.pid):
            return
        time.sleep(0.05)
    raise AssertionError((pids, blocks(process.pid)))


@needs_shared_memory
def test_what_is_not_fetched_is_freed(two):
    before = blocks()
    results = two.map(range(50))
    next(results)
    time.sleep(0.2)
    results.close()
    two.close()
    assert blocks() == before


@needs_shared_memory
def test_arrays_go_by_shared_memory_and_inline_where_it_is_full(monkeypatch):
    value = Make()(2)
    before = blocks()
    parcel = workers._pack(value)
    assert parcel.block in blocks()
    assert parcel.inline == []
    assert len(parcel.pickled) < 1000
    np.testing.assert_array_equal(workers._unpack(parcel)["image"], value["image"])
    assert blocks() == before

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    parcel = workers._pack(value)
    assert parcel.block is None
    assert blocks() == before
    said: list[str] = []
    pool = Workers(Make(), 2, say=said.append)
    for _ in range(2):
        result = pool._open(parcel)
        np.testing.assert_array_equal(result["image"], value["image"])
        result["image"][:] = 7
    assert len(said) == 1
    assert "/dev/shm: too small" in said[0]


def test_without_processes_it_goes_on_in_this_one(monkeypatch):
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(workers, "ProcessPoolExecutor", none)
    said: list[str] = []
    pool = Workers(Make(), 2, say=said.append)
    for _ in range(2):
        assert {result["pid"] for result in pool.map(range(3))} == {os.getpid()}
    assert len(said) == 1
    assert "worker processes cannot be started here" in said[0]


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "from tests.data.test_workers import Make\n"
        "from toolkit.data.workers import Workers\n"
        "pool = Workers(Make(), 2, say=print)\n"
        "print(len(list(pool.map(range(3)))))\n"
        "pool.close()\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["once", "3"]
    assert done.stderr == ""
