from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from toolkit.errors import UserError
from toolkit.weights.load import read_weights, write_safetensors


def test_what_is_written_comes_back_and_others_read_it(tmp_path: Path) -> None:
    weights = {"a.b": np.arange(6, dtype="f4").reshape(2, 3).T, "c": np.array([1, 2], "i8"), "d": np.ones((), "f2")}
    path = tmp_path / "x.safetensors"
    write_safetensors(path, weights, metadata={"classes": '["Größe"]'})
    for found in (read_weights(path), safetensors.numpy.load_file(path)):
        assert set(found) == set(weights)
        for name, value in weights.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_bfloat16_comes_as_its_bits(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + struct.pack("<HH", 0x3F80, 0x4000)
    (tmp_path / "x.safetensors").write_bytes(content)
    assert read_weights(tmp_path / "x.safetensors")["a"].tolist() == [0x3F80, 0x4000]


@pytest.mark.parametrize("length", [0, 7, 20, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": np.ones(9, "f4")})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"x\.safetensors: not a whole safetensors file"):
        read_weights(path)


def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "none.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_safetensors(tmp_path / "file" / "x.safetensors", {"a": np.ones(1, "f4")})
