from __future__ import annotations

import pytest

from toolkit.device import available_devices, set_device
from toolkit.errors import UserError


def test_auto_finds_something_that_exists() -> None:
    assert set_device("auto") in available_devices()


def test_the_cpu_is_always_there() -> None:
    assert set_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["tpu", "gpu:x", "cuda:0", "", "gpu:99", "npu:99"])
def test_what_is_not_there_is_refused_with_what_is(device: str) -> None:
    with pytest.raises(UserError, match="possible here: auto, cpu"):
        set_device(device)
