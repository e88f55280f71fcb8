from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import ctypes, os
from toolkit.quiet import captured
print("before")
with captured() as text:
    ctypes.CDLL(None).puts(b"C")
    os.write(2, b"error ")
    print("Python")
print("after", sorted(text().split()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the C library has no name there")
def test_what_c_prints_is_kept_and_what_comes_around_it_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter ['C', 'Python', 'error']\n"
    assert done.stderr == ""
