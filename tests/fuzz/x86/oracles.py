"""Outside judges of one instruction: Unicorn, and the host CPU itself.

Unicorn is QEMU's TCG; the host CPU is the real thing but runs only what cannot fault, branch or need privilege.
"""

import ctypes
import functools
import mmap

import unicorn
import unicorn.x86_const as ux

from fuzz.x86.state import CODE, CODE_SIZE, DATA, DATA_SIZE, Fpu, Result, State

_STATUS = 0x8D5
_DF = 0x400
_GPR64 = [
    getattr(ux, f"UC_X86_REG_{n}")
    for n in (
        ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"]
    )
]
_GPR32 = [getattr(ux, f"UC_X86_REG_{n}") for n in ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"]]
_XMM = [getattr(ux, f"UC_X86_REG_XMM{n}") for n in range(16)]
_FP = [getattr(ux, f"UC_X86_REG_FP{n}") for n in range(8)]
_PAGE_FAULTS = (
    unicorn.UC_ERR_READ_UNMAPPED,
    unicorn.UC_ERR_WRITE_UNMAPPED,
    unicorn.UC_ERR_READ_PROT,
    unicorn.UC_ERR_WRITE_PROT,
)


class UnicornCpu:
    """One Unicorn instance a code size. Code goes to ever new addresses, so no translation is stale."""

    name = "unicorn"

    def __init__(self, *, code64: bool) -> None:
        self.code64 = code64
        self.gprs = _GPR64 if code64 else _GPR32
        self.vector = -1
        self.reset()

    def reset(self) -> None:
        """A fresh machine: one that has seen an exception makes double faults of the next ones."""
        code64 = self.code64
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if code64 else unicorn.UC_MODE_32)
        self.uc.mem_map(CODE, CODE_SIZE)
        self.uc.mem_map(DATA, DATA_SIZE)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)

    def _interrupt(self, uc: unicorn.Uc, number: int, _: object) -> None:
        self.vector = number
        uc.emu_stop()

    def put(self, state: State) -> None:
        uc = self.uc
        uc.mem_write(DATA, state.memory)
        for register, value in zip(self.gprs, state.regs, strict=False):
            uc.reg_write(register, value)
        uc.reg_write(ux.UC_X86_REG_EFLAGS, 0x202 | state.flags | (_DF if state.df else 0))
        for register, value in zip(_XMM[: 16 if self.code64 else 8], state.xmm, strict=False):
            uc.reg_write(register, value)
        uc.reg_write(ux.UC_X86_REG_MXCSR, state.mxcsr)
        if self.code64:
            uc.reg_write(ux.UC_X86_REG_FS_BASE, state.fs_base)
            uc.reg_write(ux.UC_X86_REG_GS_BASE, state.gs_base)
        fpu = state.fpu
        uc.reg_write(ux.UC_X86_REG_FPCW, fpu.control)
        uc.reg_write(ux.UC_X86_REG_FPSW, fpu.status & ~0x3800 | fpu.top << 11)
        uc.reg_write(ux.UC_X86_REG_FPTAG, sum(3 << 2 * i for i in range(8) if fpu.empty >> i & 1))
        for i, value in enumerate(fpu.regs):
            uc.reg_write(_FP[i], (value & (1 << 64) - 1, value >> 64))

    def take(self, before: State) -> State:
        uc = self.uc
        state = before.copy()
        state.regs = [uc.reg_read(r) for r in self.gprs] + ([] if self.code64 else before.regs[8:])
        flags = uc.reg_read(ux.UC_X86_REG_EFLAGS)
        state.flags, state.df = flags & _STATUS, bool(flags & _DF)
        xmm = [uc.reg_read(r) for r in _XMM[: 16 if self.code64 else 8]]
        state.xmm = xmm + before.xmm[len(xmm) :]
        state.mxcsr = uc.reg_read(ux.UC_X86_REG_MXCSR)
        word, tags = uc.reg_read(ux.UC_X86_REG_FPSW), uc.reg_read(ux.UC_X86_REG_FPTAG)
        regs = [uc.reg_read(r) for r in _FP]
        state.fpu = Fpu(
            uc.reg_read(ux.UC_X86_REG_FPCW),
            word & ~0x3800,
            word >> 11 & 7,
            sum(1 << i for i in range(8) if tags >> 2 * i & 3 == 3),
            [low | high << 64 for low, high in regs],
        )
        state.memory = bytes(uc.mem_read(DATA, DATA_SIZE))
        return state

    def step(self, code: bytes, pc: int, before: State) -> Result:
        uc = self.uc
        uc.mem_write(pc, code.ljust(16, b"\x90"))
        self.put(before)
        self.vector = -1
        try:
            uc.emu_start(pc, CODE + CODE_SIZE, count=1)
        except unicorn.UcError as error:
            if error.errno in _PAGE_FAULTS:
                self.vector = 14
            elif error.errno == unicorn.UC_ERR_INSN_INVALID:
                self.vector = 6
            elif error.errno not in (unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_FETCH_PROT):
                raise
        if self.vector >= 0:
            if self.vector not in (6, 14):
                self.reset()
            return Result(before, pc, self.vector)
        after = uc.reg_read(ux.UC_X86_REG_RIP if self.code64 else ux.UC_X86_REG_EIP)
        return Result(self.take(before), after)


# --- the host CPU -----------------------------------------------------------------------------------------------------
# One page at a low address: saved host state, then the guest's registers, then FXSAVE images.
_AREA = 0x3000_0000
_HOST_RSP, _GPRS, _FLAGS, _RESUME = _AREA, _AREA + 8, _AREA + 8 + 16 * 8, _AREA + 0x100
_FX_GUEST, _FX_HOST, _STUBS = _AREA + 0x200, _AREA + 0x400, _AREA + 0x1000
_SAVED = (3, 5, 12, 13, 14, 15)  # callee-saved: RBX, RBP, R12..R15


class HostCpu:
    """Runs user-level, non-faulting, straight-line 64-bit instructions on this very CPU."""

    name = "host"

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
        fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000  # MAP_FIXED_NOREPLACE
        everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        for at, size in ((_AREA, 0x10000), (CODE, CODE_SIZE), (DATA, DATA_SIZE)):
            if libc.mmap(at, size, everything, fixed, -1, 0) != at:
                raise OSError("cannot map the fuzzer's area")
        self._put(_STUBS, _enter_code())
        self._leave = _STUBS + 0x800
        self._put(self._leave, _leave_code())
        self._enter = ctypes.CFUNCTYPE(None)(_STUBS)

    @staticmethod
    def _put(at: int, data: bytes) -> None:
        ctypes.memmove(at, data, len(data))

    @staticmethod
    def _get(at: int, size: int) -> bytes:
        return ctypes.string_at(at, size)

    def step(self, code: bytes, pc: int, before: State) -> Result:
        """The instruction must not fault: a fault kills the process."""
        self._put(pc, code + b"\xff\x24\x25" + (_RESUME + 8).to_bytes(4, "little"))
        self._put(_RESUME, pc.to_bytes(8, "little") + self._leave.to_bytes(8, "little"))
        self._put(DATA, before.memory)
        self._put(_GPRS, b"".join(r.to_bytes(8, "little") for r in before.regs))
        self._put(_FLAGS, (0x202 | before.flags | (_DF if before.df else 0)).to_bytes(8, "little"))
        self._put(_FX_GUEST, _fxsave_image(before))
        self._enter()
        after = before.copy()
        raw = self._get(_GPRS, 17 * 8)
        words = [int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(17)]
        after.regs, flags = words[:16], words[16]
        after.flags, after.df = flags & _STATUS, bool(flags & _DF)
        after.memory = self._get(DATA, DATA_SIZE)
        _from_fxsave(after, self._get(_FX_GUEST, 512))
        return Result(after, pc + len(code))


def _absolute(opcode: bytes, reg: int, at: int, *, wide: bool = True) -> bytes:
    """An instruction with ModRM and the absolute address `at` (SIB form, which keystone does not make)."""
    rex = bytes([0x48 | (reg >> 3) << 2]) if wide else b""
    return rex + opcode + bytes([(reg & 7) << 3 | 4, 0x25]) + at.to_bytes(4, "little")


def _move_rsp(value: int) -> bytes:
    return b"\x48\xc7\xc4" + value.to_bytes(4, "little")


def _push_pop(opcode: int, reg: int) -> bytes:
    return (b"\x41" if reg >= 8 else b"") + bytes([opcode + (reg & 7)])


def _enter_code() -> bytes:
    """Save the host's registers, load the guest's, jump to the instruction."""
    code = b"".join(_push_pop(0x50, r) for r in _SAVED)
    code += (
        _absolute(b"\x89", 4, _HOST_RSP) + _absolute(b"\x0f\xae", 0, _FX_HOST) + _absolute(b"\x0f\xae", 1, _FX_GUEST)
    )
    code += _move_rsp(_FLAGS) + b"\x9d"  # popfq
    code += b"".join(_absolute(b"\x8b", r, _GPRS + 8 * r) for r in range(16))
    return code + _absolute(b"\xff", 4, _RESUME, wide=False)


def _leave_code() -> bytes:
    """Save the guest's registers, restore the host's, return."""
    code = b"".join(_absolute(b"\x89", r, _GPRS + 8 * r) for r in range(16))
    code += _move_rsp(_FLAGS + 8) + b"\x9c\xfc"  # pushfq, cld
    code += (
        _absolute(b"\x0f\xae", 0, _FX_GUEST) + _absolute(b"\x0f\xae", 1, _FX_HOST) + _absolute(b"\x8b", 4, _HOST_RSP)
    )
    return code + b"".join(_push_pop(0x58, r) for r in reversed(_SAVED)) + b"\xc3"


def _fxsave_image(state: State) -> bytes:
    """SDM vol. 1, table 10-2."""
    fpu = state.fpu
    image = bytearray(512)
    image[0:2] = fpu.control.to_bytes(2, "little")
    image[2:4] = (fpu.status & ~0x3800 | fpu.top << 11).to_bytes(2, "little")
    image[4] = ~fpu.empty & 0xFF
    image[24:28] = state.mxcsr.to_bytes(4, "little")
    image[28:32] = (0xFFFF).to_bytes(4, "little")
    for i in range(8):  # by stack position
        image[32 + 16 * i : 42 + 16 * i] = fpu.regs[fpu.top + i & 7].to_bytes(10, "little")
    for i, value in enumerate(state.xmm):
        image[160 + 16 * i : 176 + 16 * i] = value.to_bytes(16, "little")
    return bytes(image)


def _from_fxsave(state: State, image: bytes) -> None:
    word = int.from_bytes(image[2:4], "little")
    top = word >> 11 & 7
    regs = [0] * 8
    for i in range(8):
        regs[top + i & 7] = int.from_bytes(image[32 + 16 * i :][:10], "little")
    state.fpu = Fpu(int.from_bytes(image[0:2], "little"), word & ~0x3800, top, ~image[4] & 0xFF, regs)
    state.mxcsr = int.from_bytes(image[24:28], "little")
    state.xmm = [int.from_bytes(image[160 + 16 * i :][:16], "little") for i in range(16)]


@functools.cache
def unicorn_cpu(code64: bool) -> UnicornCpu:
    return UnicornCpu(code64=code64)


@functools.cache
def host_cpu() -> HostCpu | None:
    """The host as an oracle, or None on another architecture."""
    import platform

    return HostCpu() if platform.machine() == "x86_64" else None
