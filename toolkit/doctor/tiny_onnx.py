"""A convolution with ReLU as an ONNX file of a few hundred bytes, made without the package `onnx`.

An ONNX file is a protobuf message. The numbers of the fields below are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; how they are encoded is told in
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

INPUT_SHAPE, WEIGHT_SHAPE, OUTPUT_SHAPE = (1, 2, 6, 6), (3, 2, 3, 3), (1, 3, 4, 4)
_FLOAT = 1
"""TensorProto.DataType"""
_IR_VERSION, _OPSET = 8, 13


def pixels() -> list[float]:
    """Values for the input, in order of memory; small whole numbers, so that sums are exact in any precision."""
    return [float(i % 5 - 2) for i in range(_size(INPUT_SHAPE))]


def expected() -> list[float]:
    """What the graph makes of `pixels()`, computed without any library."""
    (_, channels, height, width), (outputs, _, rows, columns) = INPUT_SHAPE, WEIGHT_SHAPE
    given, kernel = pixels(), weights()
    result = []
    for o in range(outputs):
        for y in range(height - rows + 1):
            for x in range(width - columns + 1):
                total = sum(
                    given[(c * height + y + i) * width + x + j] * kernel[((o * channels + c) * rows + i) * columns + j]
                    for c in range(channels)
                    for i in range(rows)
                    for j in range(columns)
                )
                result.append(max(total, 0.0))
    return result


def model() -> bytes:
    """The file: `y = Relu(Conv(x, w))`."""
    graph = b"".join(
        (
            _message(1, _node("Conv", ["x", "w"], "c")),
            _message(1, _node("Relu", ["c"], "y")),
            _message(2, b"tiny"),
            _message(5, _tensor("w", WEIGHT_SHAPE, weights())),
            _message(11, _value("x", INPUT_SHAPE)),
            _message(12, _value("y", OUTPUT_SHAPE)),
        )
    )
    opset = _message(1, b"") + _number(2, _OPSET)
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, opset)


def weights() -> list[float]:
    """Of the convolution, in order of memory."""
    return [float(i % 3 - 1) for i in range(_size(WEIGHT_SHAPE))]


def _node(kind: str, inputs: Sequence[str], output: str) -> bytes:
    given = b"".join(_message(1, name.encode()) for name in inputs)
    return given + _message(2, output.encode()) + _message(4, kind.encode())


def _tensor(name: str, shape: Sequence[int], values: Sequence[float]) -> bytes:
    sizes = b"".join(_number(1, size) for size in shape)
    raw = struct.pack(f"<{len(values)}f", *values)
    return sizes + _number(2, _FLOAT) + _message(8, name.encode()) + _message(9, raw)


def _value(name: str, shape: Sequence[int]) -> bytes:
    sizes = b"".join(_message(1, _number(1, size)) for size in shape)
    tensor = _number(1, _FLOAT) + _message(2, sizes)
    return _message(1, name.encode()) + _message(2, _message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _size(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
