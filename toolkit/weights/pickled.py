"""The part of the pickle format that weights are written in, read and written without `pickle`.

Paddle keeps weights as pickles, and a pickle is a program: its opcodes may name any function and call it. The reader
here is a small interpreter of those opcodes that build data. It knows eight names, looks none of them up, and has no
means of calling anything, so whatever a file says, nothing of it runs.

Data are None, bool, int, float, str, bytes, list, tuple, dict and numeric NumPy arrays, nested at will.

Format: `pickletools` of the standard library; `paddle.save` writes protocols 2 to 4.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UserError

_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUILTINS = ("builtins", "__builtin__")
_NAMES = {
    **{(module, name): name for module in _NUMPY for name in ("_reconstruct", "scalar")},
    **{(module, name): name for module in _BUILTINS for name in ("tuple", "bytes")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("collections", "OrderedDict"): "OrderedDict",
}

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_HINTS = {
    b"PK\x03\x04": "this is a zip archive, as PyTorch writes",
    b"<": "this is a web page; the download went wrong",
    b"version https://git-lfs": "this is a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"\x80\x05": "this is pickle protocol 5; write it with paddle.save",
}


class _NotDataError(Exception):
    """Why a pickle is not plain data."""


class _Name:
    """A global that the file names; only `_Reader._reduce` gives it a meaning."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _Unfinished:
    """A dtype or array between the opcode that makes it and the one that brings its content."""

    __slots__ = ("dtype", "value")

    def __init__(self, dtype: np.dtype[Any] | None = None) -> None:
        self.dtype = dtype
        self.value: np.ndarray | np.dtype[Any] | None = None


_MARK = object()


class _Reader:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, source: Any) -> Any:
        """Interpret the pickle in the file `source`; raises _NotDataError with the place, or ValueError if cut off."""
        place = 0
        try:
            for opcode, argument, position in pickletools.genops(source):
                place = position or 0
                self._step(opcode.name, argument)
            result = self._pop()
            if self.stack:
                raise _NotDataError("malformed")
            _require_data(result)
        except _NotDataError as error:
            raise _NotDataError(f"byte {place}: {error}") from None
        except (IndexError, TypeError, AttributeError) as error:
            raise _NotDataError(f"byte {place}: malformed ({type(error).__name__})") from None
        return result

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack.append(tuple([self._pop() for _ in range(count)][::-1]))
        elif step := _STEPS.get(name):
            step(self, argument)
        else:
            raise _NotDataError(f"opcode {name}, which weights never need")

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _NotDataError("malformed")
        return value

    def _to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise _NotDataError("malformed")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _protocol(self, argument: int) -> None:
        if argument > 4:
            raise _NotDataError(f"pickle protocol {argument}; write it with paddle.save")

    def _nothing(self, argument: Any) -> None:
        """FRAME only says how much to buffer; STOP is the end of the opcodes anyway."""

    def _mark(self, argument: None) -> None:
        self.stack.append(_MARK)

    def _empty_list(self, argument: None) -> None:
        self.stack.append([])

    def _empty_dict(self, argument: None) -> None:
        self.stack.append({})

    def _tuple(self, argument: None) -> None:
        self.stack.append(tuple(self._to_mark()))

    def _append(self, argument: None) -> None:
        self._extend([self._pop()])

    def _appends(self, argument: None) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise _NotDataError("malformed")
        self.stack[-1].extend(items)

    def _set_item(self, argument: None) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _set_items(self, argument: None) -> None:
        self._update(self._to_mark())

    def _update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict or len(items) % 2:
            raise _NotDataError("malformed")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise _NotDataError(f"a dict key of type {type(key).__name__}; names are text")
            self.stack[-1][key] = value

    def _put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def _memoize(self, argument: None) -> None:
        self._put(len(self.memo))

    def _get(self, key: int) -> None:
        if key not in self.memo:
            raise _NotDataError("malformed")
        value = self.memo[key]
        if isinstance(value, _Unfinished) and value.value is not None:
            value = value.value
        self.stack.append(value)

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(module, name)

    def _stack_global(self, argument: None) -> None:
        name, module = self._pop(), self._pop()
        if type(module) is not str or type(name) is not str:
            raise _NotDataError("malformed")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        known = _NAMES.get((module, name))
        if known is None:
            culprit = f"{module}.{name}"[:80]
            raise _NotDataError(f"it names {culprit}, which is code, not weights; nothing of it was run")
        self.stack.append(_Name(known))

    def _reduce(self, argument: None) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise _NotDataError("malformed")
        self.stack.append(_made(function.text, arguments))

    def _build(self, argument: None) -> None:
        state, target = self._pop(), self._pop()
        if not isinstance(target, _Unfinished) or type(state) is not tuple or target.value is not None:
            raise _NotDataError("malformed")
        target.value = _array(state) if target.dtype is None else _ordered(target.dtype, state)
        self.stack.append(target.value)


_STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader._protocol,
    "FRAME": _Reader._nothing,
    "STOP": _Reader._nothing,
    "MARK": _Reader._mark,
    "EMPTY_LIST": _Reader._empty_list,
    "EMPTY_DICT": _Reader._empty_dict,
    "TUPLE": _Reader._tuple,
    "APPEND": _Reader._append,
    "APPENDS": _Reader._appends,
    "SETITEM": _Reader._set_item,
    "SETITEMS": _Reader._set_items,
    "BINPUT": _Reader._put,
    "LONG_BINPUT": _Reader._put,
    "MEMOIZE": _Reader._memoize,
    "BINGET": _Reader._get,
    "LONG_BINGET": _Reader._get,
    "GLOBAL": _Reader._global,
    "STACK_GLOBAL": _Reader._stack_global,
    "REDUCE": _Reader._reduce,
    "BUILD": _Reader._build,
}


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of the named constructor with these arguments stands for."""
    match name, arguments:
        case "_reconstruct", (_Name(text="ndarray"), (0,), bytes()):
            return _Unfinished()
        case "dtype", (str() as code, *_):
            if code not in _DTYPES:
                raise _NotDataError(f"an array of dtype {code[:20]!r}; weights are numbers")
            return _Unfinished(np.dtype(code))
        case "scalar", (np.dtype() as dtype, bytes() as raw) if len(raw) == dtype.itemsize:
            return np.frombuffer(raw, dtype)[0].item()
        case "encode", (str() as text, "latin1"):
            return _latin1(text)
        case "tuple", ((str(), np.ndarray() as array),):
            return array  # A tensor inside a structure: paddle.save writes its name and its value.
        case "OrderedDict", ():
            return {}
        case "bytes", ():
            return b""
    raise _NotDataError("malformed")


def _latin1(text: str) -> bytes:
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise _NotDataError("malformed") from None


def _ordered(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    if len(state) < 2 or state[1] not in ("<", ">", "|") or any(part is not None for part in state[2:5]):
        raise _NotDataError("malformed")
    return dtype.newbyteorder(state[1])


def _array(state: tuple[Any, ...]) -> np.ndarray:
    match state:
        case (1, tuple() as shape, np.dtype() as dtype, bool() as fortran, bytes() as raw):
            pass
        case _:
            raise _NotDataError("malformed array")
    if len(shape) > 32 or any(type(side) is not int or side < 0 for side in shape):
        raise _NotDataError("malformed array")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise _NotDataError(f"an array of shape {list(shape)!s:.60} with {len(raw)} bytes of content")
    try:
        array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
    except (ValueError, OverflowError):  # Empty, with a side past the address space.
        raise _NotDataError("malformed array") from None
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _require_data(tree: Any) -> None:
    seen, queue = set(), [tree]
    while queue:
        node = queue.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            queue.extend(node.values())
        elif isinstance(node, (list, tuple)):
            queue.extend(node)
        elif not isinstance(node, (np.ndarray, str, int, float, bytes)) and node is not None:
            raise _NotDataError("malformed")


def read(path: Path) -> Any:
    """The data in the pickle at `path`. Arrays come without a copy, and therefore read-only.

    Raises UserError if there is no such file, if it is cut off or not a pickle, or if it holds anything but data.
    """
    try:
        with path.open("rb") as file:
            head = file.read(32)
            for start, hint in _HINTS.items():
                if head.startswith(start):
                    raise UserError(f"{path}: not a weights file: {hint}")
            if not head.startswith(b"\x80"):
                what = "not a weights file (a pickle of protocol 2 to 4, as paddle.save writes)" if head else "empty"
                raise UserError(f"{path}: {what}")
            # Not file.read: a length in the file that lies would have it set that much memory aside.
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader().run(content)
    except _NotDataError as error:
        raise UserError(f"{path}: not a weights file: {error}") from None
    except (ValueError, OverflowError, struct.error) as error:
        raise UserError(f"{path}: damaged or cut off ({' '.join(str(error).split()):.80}); get it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def write(tree: Any, emit: Callable[[Any], Any]) -> None:
    """Pickle `tree` by calling `emit` with bytes; what comes out, `read`, `paddle.load` and `pickle` all read.

    Names are those that NumPy 1 and NumPy 2 both know, which pickle's own are not.

    Raises TypeError for anything but data.
    """
    emit(b"\x80\x04")
    _write(tree, emit)
    emit(b".")


def _write(node: Any, emit: Callable[[Any], Any]) -> None:
    match node:
        case None:
            emit(b"N")
        case bool():
            emit(b"\x88" if node else b"\x89")
        case np.bool_() | np.integer() | np.floating():
            _write(node.item(), emit)
        case int():
            raw = node.to_bytes(node.bit_length() // 8 + 1, "little", signed=True)
            emit(struct.pack("<cB", b"\x8a", len(raw)) + raw)
        case float():
            emit(struct.pack(">cd", b"G", node))
        case str():
            text = node.encode("utf-8", "surrogatepass")
            emit(struct.pack("<cI", b"X", len(text)) + text)
        case bytes():
            emit(struct.pack("<cQ", b"\x8e", len(node)) + node)
        case list():
            emit(b"](")
            for item in node:
                _write(item, emit)
            emit(b"e")
        case tuple():
            emit(b"(")
            for item in node:
                _write(item, emit)
            emit(b"t")
        case dict():
            emit(b"}(")
            for key, value in node.items():
                if type(key) not in (str, int):
                    raise TypeError(f"a dict key of type {type(key).__name__}")
                _write(key, emit)
                _write(value, emit)
            emit(b"u")
        case np.ndarray():
            _write_array(node, emit)
        case _:
            raise TypeError(f"{type(node).__name__} is not data")


def _write_array(array: np.ndarray, emit: Callable[[Any], Any]) -> None:
    code = array.dtype.str[1:]
    if code not in _DTYPES:
        raise TypeError(f"an array of dtype {array.dtype} is not data")
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    emit(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01")
    _write(array.shape, emit)
    emit(b"cnumpy\ndtype\n")
    _write(code, emit)
    emit(b"\x89\x88\x87R(K\x03")
    _write("<" if array.itemsize > 1 else "|", emit)
    emit(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89")
    emit(struct.pack("<cQ", b"\x8e", little.nbytes))
    emit(little.reshape(-1).view(np.uint8).data)
    emit(b"tb")
