"""The code buffer: one memory seen twice, never writable and executable at once, within reach of the run-time."""

import ctypes
import platform

import pytest

from tcg.exec.code_buffer import REACH, CodeBuffer, CodeBufferError
from tcg.exec.memory_map import Mapping
from tcg.runtime.layout import MACHINE
from tcg.runtime.struct import View

NEAR = ctypes.cast(ctypes.CDLL(None).memcpy, ctypes.c_void_p).value or 0


def permissions(address: int) -> str:
    with open("/proc/self/maps") as file:
        for line in file:
            span, flags = line.split()[:2]
            first, end = (int(x, 16) for x in span.split("-"))
            if first <= address < end:
                return flags
    return ""


def test_two_views_of_one_memory() -> None:
    buffer = CodeBuffer(1 << 20, NEAR)
    assert permissions(buffer.rx)[:3] == "r-x"
    assert permissions(buffer.rw)[:3] == "rw-"
    ctypes.memmove(buffer.rw + 4096, b"tessera", 7)
    assert buffer.read(buffer.rx + 4096, 7) == b"tessera"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the bytes are x86-64's")
def test_what_is_written_runs() -> None:
    buffer = CodeBuffer(1 << 16, NEAR)
    ctypes.memmove(buffer.rw, b"\x48\x8d\x47\x05\xc3", 5)  # lea rax, [rdi + 5]; ret
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(buffer.rx)(37) == 42


@pytest.mark.parametrize("size", [1, 1 << 16, 128 << 20])
def test_within_reach(size: int) -> None:
    buffer = CodeBuffer(size, NEAR)
    assert abs(buffer.rx - NEAR) <= REACH and abs(buffer.rx + buffer.size - NEAR) <= REACH


def test_too_large_is_a_clear_error() -> None:
    with pytest.raises(CodeBufferError, match="MiB"):
        CodeBuffer(1 << 33, NEAR)


def test_attach_and_close() -> None:
    memory = Mapping(MACHINE.size)
    view = View(MACHINE, memory.hva)
    buffer = CodeBuffer(1 << 20, NEAR)
    buffer.attach(view)
    assert view.get("code_top") == view.get("code_start") == buffer.rx
    assert view.get("code_end") - view.get("code_start") == buffer.size
    assert (view.get("code_start") + view.get("code_delta")) & (1 << 64) - 1 == buffer.rw
    at = buffer.rx
    buffer.close()
    assert permissions(at) == ""
