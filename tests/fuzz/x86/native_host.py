"""The host CPU as a judge of batches: user-level instructions of 64- and 32-bit code, branches and faults included.

A context block at a low address holds what a stub loads before the instruction and stores after it. What faults or
branches ends in a signal; a handler of machine code takes the registers from the signal frame and returns to the
caller, so a fault that our side did not foresee is a difference and not the end of the process.

Only for processes of their own (see campaign): the handlers of SIGSEGV and its kin are the fuzzer's.
"""

import ctypes
import mmap
import signal

import numpy as np

from fuzz.x86.cases import assemble
from fuzz.x86.oracles import _absolute, _move_rsp, _push_pop
from fuzz.x86.state import CODE, CODE_SIZE, DATA, DATA_SIZE

AREA = 0x3000_0000
_HOST_RSP, _GPRS, _FLAGS, _FAULT, _RIP, _HOST_FS, _GUEST_FS, _GUEST_GS, _RESUME, _LEAVE, _FAR = (
    AREA + 8 * n for n in (0, 1, 17, 18, 19, 20, 21, 22, 23, 24, 25)
)
_FX_GUEST, _FX_HOST, _STUBS, _STACK = AREA + 0x200, AREA + 0x400, AREA + 0x1000, AREA + 0x8000
_STACK_SIZE = 0x8000
_SAVED = (3, 5, 12, 13, 14, 15)
WORDS = 22  # GPRs, flags, fault, rip, host fs, fs, gs: what a run is given, from GPRs on
NO_FAULT = (1 << 64) - 1
_TRAP = 3
_SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
_SIGINFO, _ONSTACK, _NODEFER = 4, 0x0800_0000, 0x4000_0000
# struct ucontext: gregs at 40, in this order; then EFLAGS at 17, TRAPNO at 20
_GREGS, _ORDER = 40, (8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4)
_GREG_RIP, _GREG_FLAGS, _GREG_TRAPNO = 16, 17, 20


class _Action(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p), ("mask", ctypes.c_uint64 * 16), ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )  # fmt: skip


class _Stack(ctypes.Structure):
    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _store(reg: int, at: int) -> bytes:
    return _absolute(b"\x89", reg, at)


def _load(reg: int, at: int) -> bytes:
    return _absolute(b"\x8b", reg, at)


def _fs_base(opcode: int) -> bytes:
    """WRFSBASE (2) or WRGSBASE (3) RAX, RDFSBASE (0) RAX."""
    return b"\xf3\x48\x0f\xae" + bytes([0xC0 | opcode << 3])


def _enter(*, wide: bool) -> bytes:
    code = b"".join(_push_pop(0x50, r) for r in _SAVED)
    code += _store(4, _HOST_RSP) + _absolute(b"\x0f\xae", 0, _FX_HOST) + _absolute(b"\x0f\xae", 1, _FX_GUEST)
    code += _fs_base(0) + _store(0, _HOST_FS)
    code += _load(0, _GUEST_FS) + _fs_base(2) + _load(0, _GUEST_GS) + _fs_base(3)
    if not wide:
        code += bytes.fromhex("b82b000000 8ed8 8ec0")  # DS, ES: the flat data segment
    code += _move_rsp(_FLAGS) + b"\x9d"
    code += b"".join(_load(r, _GPRS + 8 * r) for r in range(16))
    return code + (_absolute(b"\xff", 4, _RESUME, wide=False) if wide else _absolute(b"\xff", 5, _FAR, wide=False))


def _return() -> bytes:
    code = b"\xfc" + _absolute(b"\x0f\xae", 1, _FX_HOST) + _load(0, _HOST_FS) + _fs_base(2) + _load(4, _HOST_RSP)
    return code + b"".join(_push_pop(0x58, r) for r in reversed(_SAVED)) + b"\xc3"


def _leave() -> bytes:
    code = b"".join(_store(r, _GPRS + 8 * r) for r in range(16)) + _move_rsp(_FLAGS + 8) + b"\x9c"
    return code + _absolute(b"\x0f\xae", 0, _FX_GUEST) + _return()


def _handler() -> bytes:
    moves = [(_GREGS + 8 * n, _GPRS + 8 * r) for n, r in enumerate(_ORDER)]
    for greg, at in ((_GREG_RIP, _RIP), (_GREG_FLAGS, _FLAGS), (_GREG_TRAPNO, _FAULT)):
        moves.append((_GREGS + 8 * greg, at))
    return b"".join(assemble(f"mov rax, [rdx+{offset}]") + _store(0, at) for offset, at in moves) + _return()


class NativeHost:
    """Runs one encoding on many states, all as arrays."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000  # MAP_FIXED_NOREPLACE
        data = mmap.PROT_READ | mmap.PROT_WRITE
        for at, size, rights in ((AREA, 0x10000, data | 4), (CODE, CODE_SIZE, data | 4), (DATA, DATA_SIZE, data)):
            if libc.mmap(at, size, rights, fixed, -1, 0) != at:
                raise OSError("cannot map the fuzzer's area")
        ctypes.memset(CODE, 0xCC, CODE_SIZE)  # wherever a branch goes: a trap
        at, self._entries = _STUBS, []
        for code in (_enter(wide=True), _enter(wide=False), _leave(), _handler()):
            ctypes.memmove(at, code, len(code))
            self._entries.append(at)
            at += 0x200
            assert len(code) <= 0x200
        self._enter64, self._enter32 = (ctypes.CFUNCTYPE(None)(a) for a in self._entries[:2])
        stack = _Stack(_STACK, 0, _STACK_SIZE)
        action = _Action(self._entries[3], flags=_SIGINFO | _ONSTACK | _NODEFER)
        if libc.sigaltstack(ctypes.byref(stack), None) != 0:
            raise OSError("sigaltstack")
        for number in _SIGNALS:
            if libc.sigaction(int(number), ctypes.byref(action), None) != 0:
                raise OSError("sigaction")

    def run(
        self, code: bytes, pc: int, code64: bool, words: np.ndarray, fx: np.ndarray, memories: list[bytes],
        memory_out: np.ndarray, *, branches: bool,
    ) -> None:  # fmt: skip
        """words (n, WORDS) uint64 and fx (n, 512) are replaced by what is left; memory_out: (n, DATA_SIZE).

        Afterwards words[:, 17] is the fault's vector or NO_FAULT, words[:, 18] the pc of the next instruction.
        branches: the instruction may go elsewhere, so that a trap, not a jump, stands behind it.
        """
        leave = self._entries[2]
        if code64:
            tail = b"\xff\x24\x25" + _LEAVE.to_bytes(4, "little")
            enter = self._enter64
        else:
            tail = b"\xea" + leave.to_bytes(4, "little") + b"\x33\x00"
            enter = self._enter32
        body = code + (b"" if branches else tail)
        ctypes.memmove(pc, body, len(body))
        head = pc.to_bytes(8, "little") + leave.to_bytes(8, "little") + pc.to_bytes(4, "little") + b"\x23\x00"
        ctypes.memmove(_RESUME, head, len(head))
        move, size, row = ctypes.memmove, 8 * WORDS, words.ctypes.data
        fx_at, out = fx.ctypes.data, memory_out.ctypes.data
        words[:, 17] = NO_FAULT
        words[:, 18] = pc + len(code)
        for memory in memories:
            move(_GPRS, row, size)
            move(_FX_GUEST, fx_at, 512)
            move(DATA, memory, DATA_SIZE)
            enter()
            move(row, _GPRS, size)
            move(fx_at, _FX_GUEST, 512)
            move(out, DATA, DATA_SIZE)
            row, fx_at, out = row + size, fx_at + 512, out + DATA_SIZE
        ctypes.memset(pc, 0xCC, len(body))
        trapped = words[:, 17] == _TRAP
        elsewhere = (words[:, 17] != NO_FAULT) & (words[:, 18] != pc) & ~trapped
        words[trapped, 18] -= np.uint64(1)
        words[trapped | elsewhere, 17] = NO_FAULT
