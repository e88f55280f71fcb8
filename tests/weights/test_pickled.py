"""No pickle runs anything; every piece of plain data survives."""

from __future__ import annotations

import collections
import copyreg
import io
import pickle
import pickletools
import re
import struct
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import toolkit
from toolkit.errors import UserError
from toolkit.weights import pickled

CANARY = "canary"


class Call:
    """Pickles as the call `function(*arguments)`."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.call = (module, name, arguments)

    def opcodes(self) -> bytes:
        module, name, arguments = self.call
        return named(module, name) + b"(" + b"".join(map(opcodes, arguments)) + b"tR"


class Named(Call):
    """Pickles as the global itself."""

    def opcodes(self) -> bytes:
        return named(*self.call[:2])


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def opcodes(value: Any) -> bytes:
    """Opcodes that leave `value` on the stack; bytes are taken as opcodes already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Call):
        return value.opcodes()
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(part) for item in value.items() for part in item) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    stream = pickletools.optimize(pickle.dumps(value, 2))
    return stream[2:-1]


def program(value: Any) -> bytes:
    return b"\x80\x04" + opcodes(value) + b"."


def blob(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def array(*, shape: Any = (2,), dtype: Any = None, content: bytes = blob(bytes(8)), start: Any = (0,)) -> bytes:
    """Opcodes of a NumPy array, each part of which can be a wrong one."""
    head = Call("numpy.core.multiarray", "_reconstruct", Named("numpy", "ndarray"), start, blob(b"b"))
    return opcodes(head) + opcodes((1, shape, dtype or dtype_of("f4"), False, content)) + b"b"


def dtype_of(code: Any, state: Any = (3, "<", None, None, None, -1, -1, 0)) -> bytes:
    return opcodes(Call("numpy", "dtype", code, False, True)) + opcodes(state) + b"b"


TOUCH = f"touch {CANARY}"
PYTHON = f"open({CANARY!r}, 'w').close()"
OS = Call("importlib", "import_module", "os")
EVIL = program(Call("os", "system", TOUCH))

# Each of these leaves the canary behind when pickle itself loads it, which the test does first, to be sure.
LIVE: dict[str, bytes] = {
    "os.system": EVIL,
    "posix.system": program(Call("posix", "system", TOUCH)),
    "inside weights": program({"backbone.weight": array(), "head.weight": Call("os", "system", TOUCH)}),
    "as a key": program({Call("os", "system", TOUCH): array()}),
    "popped again": b"\x80\x04" + opcodes(Call("os", "system", TOUCH)) + b"0}.",
    "protocol 2 GLOBAL": b"\x80\x02cos\nsystem\n" + text(TOUCH) + b"\x85R.",
    "INST": b"\x80\x02(" + text(TOUCH) + b"ios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\n" + text(TOUCH) + b"o.",
    "NEWOBJ": b"\x80\x04" + named("numpy", "memmap") + opcodes((CANARY, "u1", "w+", 0, 1)) + b"\x81.",
    "NEWOBJ_EX": b"\x80\x04"
    + named("numpy", "memmap")
    + opcodes((CANARY,))
    + opcodes({"mode": "w+", "shape": 1})
    + b"\x92.",
    "builtins.eval": program(Call("builtins", "eval", PYTHON)),
    "__builtin__.eval": b"\x80\x02c__builtin__\neval\n" + text(PYTHON) + b"\x85R.",
    "builtins.exec": program(Call("builtins", "exec", PYTHON)),
    "builtins.open": program(Call("builtins", "open", CANARY, "w")),
    "builtins.__import__": b"\x80\x04"
    + opcodes(Call("builtins", "getattr", Call("builtins", "__import__", "os"), "system"))
    + text(TOUCH)
    + b"\x85R.",
    "getattr of a module": b"\x80\x04" + opcodes(Call("builtins", "getattr", OS, "system")) + text(TOUCH) + b"\x85R.",
    "tuple of map": program(Call("builtins", "tuple", Call("builtins", "map", Named("os", "system"), [TOUCH]))),
    "bytes of map": program(Call("builtins", "bytes", Call("builtins", "map", Named("os", "system"), [TOUCH]))),
    "OrderedDict of map": program(
        Call("collections", "OrderedDict", Call("builtins", "map", Named("os", "mkdir"), [CANARY]))
    ),
    "functools.partial": b"\x80\x04" + opcodes(Call("functools", "partial", Named("os", "system"), TOUCH)) + b")R.",
    "functools.reduce": program(Call("functools", "reduce", Named("os", "mkdir"), [CANARY, 0o777])),
    "operator.methodcaller": b"\x80\x04"
    + opcodes(Call("operator", "methodcaller", "system", TOUCH))
    + opcodes(OS)
    + b"\x85R.",
    "operator.attrgetter": b"\x80\x04"
    + opcodes(Call("operator", "attrgetter", "system"))
    + opcodes(OS)
    + b"\x85R"
    + text(TOUCH)
    + b"\x85R.",
    "subprocess.check_output": program(Call("subprocess", "check_output", ["touch", CANARY])),
    "os.popen dotted": program(Call("os", "path.os.mkdir", CANARY)),
    "dotted through numpy": program(Call("numpy.testing._private.utils", "os.mkdir", CANARY)),
    "pathlib dotted method": program(Call("pathlib", "Path.touch", Call("pathlib", "Path", CANARY))),
    "io.open": program(Call("io", "open", CANARY, "w")),
    "codecs.open": program(Call("codecs", "open", CANARY, "w")),
    "timeit": program(Call("timeit", "timeit", PYTHON, "pass", Named("time", "perf_counter"), 1)),
    "cProfile": program(Call("cProfile", "run", PYTHON, "profile.out")),
    "numpy runstring": program(Call("numpy.testing._private.utils", "runstring", PYTHON, {})),
    "numpy.memmap": program(Call("numpy", "memmap", CANARY, "u1", "w+", 0, 1)),
    "numpy.save": program(Call("numpy", "savetxt", CANARY, [0])),
    "nested pickle.loads": program(Call("pickle", "loads", blob(EVIL))),
    "nested _pickle.loads": program(Call("_pickle", "loads", blob(EVIL))),
    "paddle's eval of a tensor": program(Call("builtins", "eval", PYTHON, {"data": array()})),
    "as the shape": program(array(shape=Call("os", "mkdir", CANARY))),
    "as a dtype": program(array(dtype=opcodes(Call("os", "mkdir", CANARY)))),
    "as the content": program(array(content=opcodes(Call("os", "mkdir", CANARY)))),
    "scalar of an object": program(
        Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "O"), Call("os", "system", TOUCH))
    ),
    "setattr on a module": program(Call("builtins", "exec", f"import os; os.mkdir({CANARY!r})")),
}

# These do harm of another kind, or try what only a filtered `pickle` would fall for.
INERT: dict[str, bytes] = {
    "persistent id": b"\x80\x02Pevil\n.",
    "binary persistent id": program(b"K\x01Q"),
    "object array": program(array(dtype=dtype_of("O"), content=opcodes([1, 2]))),
    "object array by its other name": program(array(dtype=dtype_of("O8"), content=opcodes([1, 2]))),
    "void dtype": program(array(dtype=dtype_of("V8"))),
    "text dtype": program(array(dtype=dtype_of("U2"))),
    "date dtype": program(array(dtype=dtype_of("M8[s]"))),
    "dtype of several fields": program(array(dtype=dtype_of("f4,O"))),
    "dtype of a list": program(array(dtype=dtype_of([("a", "O")]))),
    "dtype state with fields": program(array(dtype=dtype_of("f4", (3, "<", None, ("a",), {"a": (1, 0)}, 8, 8, 0)))),
    "dtype state of another kind": program(array(dtype=dtype_of("f4", {"a": 1}))),
    "dtype finished twice": program(
        array(dtype=dtype_of("f4") + opcodes((3, "<", None, None, None, -1, -1, 0)) + b"b")
    ),
    "array finished twice": program(array() + opcodes((1, (2,), dtype_of("f4"), False, blob(bytes(8)))) + b"b"),
    "array without content": program(
        Call("numpy.core.multiarray", "_reconstruct", Named("numpy", "ndarray"), (0,), blob(b"b"))
    ),
    "array of another class": program(
        Call("numpy.core.multiarray", "_reconstruct", Named("numpy", "dtype"), (0,), blob(b"b"))
    ),
    "array without a class": program(Call("numpy.core.multiarray", "_reconstruct", "ndarray", (0,), blob(b"b"))),
    "BUILD on a class": program(named("collections", "OrderedDict") + opcodes((None, {"keys": 1})) + b"b"),
    "BUILD on a dict": program(opcodes(Call("collections", "OrderedDict")) + opcodes({"__class__": 1}) + b"b"),
    "BUILD on a function": program(named("numpy.core.multiarray", "_reconstruct") + opcodes({"__doc__": "x"}) + b"b"),
    "a bare class": program({"a": Named("numpy", "ndarray")}),
    "a class in a tuple": program({"a": (1, Named("numpy", "ndarray"))}),
    "calling the array class": program(Call("numpy", "ndarray", (2**40,))),
    "calling data": program(b"]" + opcodes(()) + b"R"),
    "dotted name": program(Named("numpy", "core.multiarray._reconstruct")),
    "dotted name on a module": program(Named("numpy.core", "multiarray._reconstruct")),
    "another module's ndarray": program(Named("numpy.core.multiarray", "ndarray")),
    "name with a space": b"\x80\x02cnumpy ndarray\nx\n.",
    "name that is no text": program(opcodes(1) + opcodes(2) + b"\x93"),
    "name of surrogates": b"\x80\x04X\x03\x00\x00\x00\xed\xb0\x80X\x01\x00\x00\x00a\x93.",
    "encode to another codec": program(Call("_codecs", "encode", "x", "rot13")),
    "encode beyond latin1": program(Call("_codecs", "encode", "€", "latin1")),
    "decode": program(Call("_codecs", "decode", blob(b"x"), "hex")),
    "copyreg": program(
        Call("copyreg", "_reconstructor", Named("builtins", "object"), Named("builtins", "object"), None)
    ),
    "a set": program(b"\x8f"),
    "a key of a tuple": program(b"}" + opcodes((1,)) + opcodes(1) + b"s"),
    "a key of a list": program(b"}]K\x01s"),
    "memo never written": program(b"h\x07"),
    "empty stack": b"\x80\x04.",
    "nothing but marks": b"\x80\x04((t.",
    "a mark as the result": b"\x80\x04(.",
    "items on a number": program(b"K\x01(K\x01K\x02u"),
    "append to a tuple": program(b")K\x01a"),
    "odd items": program(b"}(K\x01u"),
    "unknown opcode": b"\x80\x04\xff.",
    "protocol 5": b"\x80\x05}.",
    "protocol 5 further on": b"\x80\x04\x80\x05}.",
    "out of band buffer": program(b"\x97"),
    "protocol 0": b"(dp0\n.",
    "wrong scalar": program(Call("numpy.core.multiarray", "scalar", dtype_of("f4"), blob(b"x"))),
    "number in letters": b"\x80\x02I12\n.",
    "text with escapes": b"\x80\x02S'\\x41'\n.",
}

# A megabyte is plenty to refuse each of these.
BOMBS: dict[str, bytes] = {
    "shape beyond the content": program(array(shape=(2**40,))),
    "shape that overflows": program(array(shape=(2**62, 4, 2))),
    "negative shape": program(array(shape=(-1, -2))),
    "empty with a huge side": program(array(shape=(0, 2**70), content=blob(b""))),
    "shape of a bool": program(array(shape=(True, 2))),
    "too many sides": program(array(shape=(1,) * 40 + (2,))),
    "start shape": program(array(start=(2**40,))),
    "content of another kind": program(array(content=opcodes([0] * 8))),
    "bytes of a number": program(Call("builtins", "bytes", 2**40)),
    "length that lies": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "text length that lies": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.",
    "frame length that lies": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"\xff",
    "memo far out": program(b"]r\xff\xff\xff\xff" + named("os", "x")),
    "repeat": program(Call("operator", "mul", [0], 2**40)),
    "copies": program(b"]" + b"2" * 64),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        pickled.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


class Watch:
    """Collects what the interpreter reports of running code, through an audit hook."""

    FORBIDDEN = (
        "exec",
        "compile",
        "import",
        "pickle.",
        "os.",
        "subprocess.",
        "ctypes.",
        "marshal.",
        "socket.",
        "code.",
    )

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _: Any) -> None:
        if self.on and event.startswith(self.FORBIDDEN):
            self.events.append(event)

    def __enter__(self) -> Watch:
        self.on, self.events = True, []
        return self

    def __exit__(self, *_: object) -> None:
        self.on = False


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.mark.parametrize("name", LIVE)
def test_code_is_refused_and_does_not_run(name, folder, watch):
    canary = folder / CANARY
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.StringIO())
        with suppress(Exception):  # Whether it ends well does not matter, only whether it ran.
            pickle.loads(LIVE[name])
    assert canary.exists(), "the payload is a dud"
    if canary.is_dir():
        canary.rmdir()
    else:
        canary.unlink()

    path = folder / "evil.pdparams"
    path.write_bytes(LIVE[name])
    with watch, pytest.raises(UserError):
        pickled.read(path)
    assert watch.events == []
    assert not canary.exists()


@pytest.mark.parametrize("name", INERT)
def test_what_is_no_plain_data_is_refused(name, folder, watch):
    with watch:
        path = folder / "evil.pdparams"
        path.write_bytes(INERT[name])
        with pytest.raises(UserError):
            pickled.read(path)
    assert watch.events == []


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_do_not_go_off(name, folder):
    tracemalloc.start()
    try:
        refused(folder / "bomb.pdparams", BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_extension_codes_are_refused_even_when_cached(folder):
    copyreg.add_extension("os", "mkdir", 240)
    try:
        payload = b"\x80\x02\x82\xf0" + text(CANARY) + b"\x85R."
        pickle.loads(payload)  # From now on pickle has it in its cache and asks nobody.
        (folder / CANARY).rmdir()
        refused(folder / "evil.pdparams", payload)
        assert not (folder / CANARY).exists()
    finally:
        copyreg.remove_extension("os", "mkdir", 240)


def test_refusal_names_file_place_and_culprit(folder):
    message = refused(folder / "evil.pdparams", program({"a": array(), "b": Call("os", "system", TOUCH)}))
    place = program({"a": array(), "b": Call("os", "system", TOUCH)}).index(b"system\x93") + len("system")
    assert message == (
        f"{folder}/evil.pdparams: not a weights file: byte {place}: it names os.system, which is code, not weights; "
        "nothing of it was run"
    )


def test_nested_pickle_stays_bytes(folder):
    path = folder / "data.pdparams"
    path.write_bytes(program({"a": blob(EVIL)}))
    assert pickled.read(path) == {"a": EVIL}
    assert not (folder / CANARY).exists()


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "empty"),
        (b"PK\x03\x04abc", "PyTorch"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x00\x00\x00\x00", "paddle.save"),
        (b"\x80\x05\x95", "paddle.save"),
        (b"\x80", "cut off"),
    ],
)
def test_other_files_are_named(folder, content, hint):
    assert hint in refused(folder / "x.pdparams", content)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.pdparams", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            pickled.read(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_cut_is_noticed(folder, protocol):
    whole = pickle.dumps({"a": np.arange(5, dtype="f4"), "b": [1, "x", (2.5, None)]}, protocol)
    path = folder / "cut.pdparams"
    for length in range(len(whole)):
        refused(path, whole[:length])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_refused_or_harmless(folder, watch, data):
    whole = bytearray(pickle.dumps({"a": np.arange(6, dtype="f4").reshape(2, 3), "b": [1, "x", (2.5, None)]}, 4))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.pdparams"
    path.write_bytes(whole)
    with watch, suppress(UserError):
        pickled.read(path)
    assert watch.events == []


numbers = st.sampled_from(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">i8"])
arrays = numbers.flatmap(
    lambda code: hnp.arrays(code, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | arrays
keys = st.text() | st.integers()
trees = st.dictionaries(
    keys,
    st.recursive(
        leaves, lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner), max_leaves=8
    ),
    max_size=5,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
            and a.shape == b.shape
            and np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes()
            == np.ascontiguousarray(b).astype(b.dtype.newbyteorder("<")).tobytes()
        )
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(b) is type(a) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and struct.pack("d", a) == struct.pack("d", b)
    return type(a) is type(b) and a == b


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees, protocol=st.sampled_from([2, 3, 4]))
def test_reads_what_pickle_writes(tmp_path, tree, protocol):
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps(tree, protocol))
    assert same(tree, pickled.read(path))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees)
def test_writes_what_it_and_pickle_read(tmp_path, tree):
    path = tmp_path / "x"
    with path.open("wb") as file:
        pickled.write(tree, file.write)
    assert same(tree, pickled.read(path))
    assert same(tree, pickle.loads(path.read_bytes()))


def test_written_names_are_known_to_numpy_1_as_well():
    stream = io.BytesIO()
    pickled.write({"a": np.ones(2, "f4")}, stream.write)
    names = {argument for opcode, argument, _ in pickletools.genops(stream.getvalue()) if opcode.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}


def test_layouts_of_memory(tmp_path):
    base = np.arange(24, dtype="f4").reshape(2, 3, 4)
    tree = {"fortran": np.asfortranarray(base), "strided": base[:, ::2, ::-1], "turned": base.T}
    path = tmp_path / "x"
    for content in (pickle.dumps(tree, 4), pickle.dumps(tree, 2)):
        path.write_bytes(content)
        assert all(np.array_equal(tree[key], value) for key, value in pickled.read(path).items())
    with path.open("wb") as file:
        pickled.write(tree, file.write)
    assert all(np.array_equal(tree[key], value) for key, value in pickled.read(path).items())


def test_shared_arrays_and_scalars(tmp_path):
    shared = np.arange(3, dtype="f4")
    tree = collections.OrderedDict(a=shared, b=shared, rate=np.float64(0.1), step=np.int64(7))
    path = tmp_path / "x"
    for protocol in (2, 3, 4):
        path.write_bytes(pickle.dumps(tree, protocol))
        found = pickled.read(path)
        assert found["a"] is found["b"]
        assert np.array_equal(found["a"], shared)
        assert (found["rate"], found["step"]) == (0.1, 7)


def test_arrays_are_read_only(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(pickle.dumps({"a": np.ones(3)}, 4))
    with pytest.raises(ValueError, match="read-only"):
        pickled.read(path)["a"][0] = 2


@pytest.mark.parametrize("value", [{1, 2}, object(), np.array([None]), np.array(["x"]), 1j, {(1,): 2}])
def test_writes_nothing_but_data(value):
    with pytest.raises(TypeError):
        pickled.write({"a": value}, io.BytesIO().write)


def test_deep_nesting(tmp_path):
    depth = 100_000
    path = tmp_path / "x"
    path.write_bytes(b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b".")
    assert isinstance(pickled.read(path), list)


def test_the_package_never_loads_with_pickle():
    unsafe = re.compile(r"import pickle\b|pickle\.load|paddle\.load\(|allow_pickle=True")
    for source in Path(toolkit.__file__).parent.rglob("*.py"):
        if source.name == "workers.py":  # Between our own processes.
            continue
        assert not unsafe.search(source.read_text(encoding="utf-8")), source
