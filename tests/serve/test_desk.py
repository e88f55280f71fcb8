"""Batches of what waits, an early no, and nobody left without an answer."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.serve.conftest import Fixed, encoded
from toolkit.serve import desk as module
from toolkit.serve.desk import Desk
from toolkit.serve.limits import Limits, RefusedError

PICTURE = encoded()


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many threads as sessions, so that it is known what waits."""
    monkeypatch.setattr(module, "AHEAD", 0)


def desk(pipeline: Fixed, **limits: Any) -> Desk:
    return Desk(pipeline, Limits(**limits))  # type: ignore[arg-type]


def test_what_waits_goes_through_together_if_it_wants_the_same(pipeline: Fixed) -> None:
    pipeline.batch_size = 4
    one = desk(pipeline)

    async def run() -> list[Any]:
        pipeline.go.clear()
        waiting = [asyncio.create_task(one.find([PICTURE], 0.5))]
        for _ in range(1000):
            if pipeline.batches:
                break
            await asyncio.sleep(0.01)
        waiting += [asyncio.create_task(one.find([PICTURE], threshold)) for threshold in (0.5,) * 5 + (0.7, 0.5)]
        await asyncio.sleep(0.05)
        pipeline.go.set()
        return await asyncio.gather(*waiting)

    counts = [len(results[0]["boxes"]) for results in asyncio.run(run())]
    assert counts == [2] * 6 + [1, 2]
    assert pipeline.batches == [1, 4, 1, 1, 1]
    one.close()


def test_where_it_takes_too_long_it_says_so_at_once() -> None:
    pipeline = Fixed(seconds=0.2)
    one = desk(pipeline, seconds=1.0)

    async def run() -> None:
        with one.place():
            await one.find([PICTURE], None)  # Now it knows how long a picture takes.
        with one.place(3), pytest.raises(RefusedError) as caught, one.place():
            pass
        assert caught.value.status == 503
        assert caught.value.retry_after == 1

    asyncio.run(run())
    one.close()


def test_of_what_is_worked_on_together_the_pace_counts() -> None:
    pipeline = Fixed(seconds=0.04, at_once=4)
    one = desk(pipeline, seconds=1.0)

    async def run() -> None:
        with one.place(40):
            await one.find([PICTURE] * 40, None)
        # A picture takes 0.04 s, but one is done every 0.01.
        with one.place(16), one.place():
            pass

    asyncio.run(run())
    one.close()


def test_what_is_known_at_the_start_counts(pipeline: Fixed) -> None:
    one = Desk(pipeline, Limits(seconds=1.0), seconds=0.2)  # type: ignore[arg-type]
    with one.place(3), pytest.raises(RefusedError), one.place():
        pass
    one.close()


def test_a_picture_by_itself_has_all_cores_and_several_have_one_each() -> None:
    pipeline = Fixed(at_once=2)
    one = desk(pipeline)

    async def run() -> None:
        with one.place():
            await one.find([PICTURE], None)
        with one.place(2):
            await one.find([PICTURE] * 2, None)

    asyncio.run(run())
    one.close()
    assert pipeline.networks == ["all cores", "a core each", "a core each"]


def test_a_network_for_one_thread_is_never_called_by_two() -> None:
    pipeline = Fixed()
    pipeline.backend = SimpleNamespace(name="not shared", shared=False)
    one = desk(pipeline)

    async def run() -> None:
        with one.place():
            await one.find([PICTURE], None)

    asyncio.run(run())
    one.close()
    assert pipeline.networks == ["a core each"]  # Whose gate it has to pass.


def test_of_a_batch_only_what_is_no_picture_is_refused(pipeline: Fixed) -> None:
    pipeline.batch_size = 4
    one = desk(pipeline)

    async def run() -> None:
        pipeline.go.clear()
        first = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.1)
        broken = asyncio.create_task(one.find([PICTURE[:-30]], None))
        whole = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.05)
        pipeline.go.set()
        assert len(await first) == len(await whole) == 1
        with pytest.raises(RefusedError) as caught:
            await broken
        assert caught.value.status == 422

    asyncio.run(asyncio.wait_for(run(), 10))
    one.close()
    assert pipeline.batches == [1, 1]


def test_the_queue_is_bounded(pipeline: Fixed) -> None:
    one = desk(pipeline, queue=4)
    with one.place(4), pytest.raises(RefusedError), one.place():
        pass
    with one.place(4):
        pass
    one.close()


def test_what_has_waited_too_long_is_let_go(pipeline: Fixed) -> None:
    one = desk(pipeline, seconds=0.2)

    async def run() -> None:
        pipeline.go.clear()
        first = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.4)
        pipeline.go.set()
        await first
        with pytest.raises(RefusedError, match="waited too long"):
            await second

    asyncio.run(run())
    assert pipeline.batches == [1]
    one.close()


def test_of_a_batch_only_what_is_late_is_let_go(pipeline: Fixed) -> None:
    pipeline.batch_size = 4
    one = desk(pipeline, seconds=0.6)

    async def run() -> None:
        pipeline.go.clear()
        first = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.1)
        late = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.6)
        in_time = asyncio.create_task(one.find([PICTURE], None))
        await asyncio.sleep(0.05)
        pipeline.go.set()
        await first
        with pytest.raises(RefusedError, match="waited too long"):
            await late
        assert len(await in_time) == 1

    asyncio.run(asyncio.wait_for(run(), 10))
    one.close()


def test_an_error_reaches_its_request_and_the_next_one_is_served(pipeline: Fixed) -> None:
    one = desk(pipeline)

    async def run() -> None:
        pipeline.error = RuntimeError("broken")
        with pytest.raises(RuntimeError, match="broken"):
            await one.find([PICTURE], None)
        pipeline.error = None
        assert len(await one.find([PICTURE, PICTURE], None)) == 2

    asyncio.run(run())
    one.close()


def test_closing_waits_for_what_was_accepted() -> None:
    pipeline = Fixed(seconds=0.1)
    one = desk(pipeline)

    async def run() -> list[Any]:
        tasks = [asyncio.create_task(one.find([PICTURE], None)) for _ in range(4)]
        await asyncio.sleep(0)
        start = time.monotonic()
        await asyncio.to_thread(one.close)
        assert time.monotonic() - start > 0.25
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(run())) == 4
