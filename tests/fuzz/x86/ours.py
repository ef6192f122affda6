"""Our side of the fuzzer: decode, emit, and run one instruction's IR on the reference interpreter."""

import ctypes
import functools
import importlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from frontends.x86.flags import CcOp, status
from frontends.x86.frontend import X86Frontend
from frontends.x86.state import STATE, XMM_STRIDE, Mode, Seg
from fuzz.x86.state import DATA, M64, Fpu, Result, State
from tcg.exec.forms import HoleSlot, Pattern, StatusOut, Variant
from tcg.ir.block import Block, Operand
from tcg.ir.builder import Builder
from tcg.ir.floats import FpAccess
from tcg.ir.interp import EnvAccess, FlatMemory, GuestFault, Outcome, run
from tcg.ir.types import MemOp
from tcg.runtime.native import NATIVE

MODE64 = Mode.CODE64 | Mode.PROTECTED
MODE32 = Mode.CODE32 | Mode.STACK32 | Mode.PROTECTED
HELPER_MODULES = ("flags", "bits", "simd", "x87", "fpu")  # those whose Python bodies need no run-time

_REGS, _XMM = STATE.offset("regs"), STATE.offset("xmm")


class GuestMemory(FlatMemory):
    """The data region; a misaligned access that demands alignment is #GP, as SSE's are."""

    def load(self, gva: int, memop: MemOp) -> int:
        self._check(gva, memop)
        return FlatMemory.load(self, gva, MemOp(memop.size, big_endian=memop.big_endian))

    def store(self, gva: int, memop: MemOp, value: int) -> None:
        self._check(gva, memop)
        FlatMemory.store(self, gva, MemOp(memop.size, big_endian=memop.big_endian), value)

    def _check(self, gva: int, memop: MemOp) -> None:
        canonical = (gva >> 47) in (0, (1 << 17) - 1)
        if gva % memop.align or not canonical:
            raise GuestFault(13)


class Env:
    """Raw memory for one vCPU's env, as natives and the interpreter both see it."""

    def __init__(self, hva: int = 0) -> None:
        """hva: memory of STATE.size bytes (0: its own)."""
        self._buffer = ctypes.create_string_buffer(STATE.size + 64)
        self.hva = hva or (ctypes.addressof(self._buffer) + 63) & ~63
        self.data = memoryview((ctypes.c_char * STATE.size).from_address(self.hva)).cast("B")

    def get(self, name: str, index: int = 0) -> int:
        at = STATE.offset(name, index)
        return int.from_bytes(self.data[at : at + STATE.fields[name].size], "little")

    def set(self, name: str, value: int, index: int = 0) -> None:
        at, size = STATE.offset(name, index), STATE.fields[name].size
        self.data[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")

    def put(self, state: State, mode: int) -> None:
        """A whole architectural state (user level, flat segments)."""
        self.data[:] = bytes(STATE.size)
        for i, value in enumerate(state.regs):
            self.set("regs", value, i)
        op, dst, src, src2 = state.lazy
        for name, value in (("cc_op", op), ("cc_dst", dst), ("cc_src", src), ("cc_src2", src2)):
            self.set(name, value)
        self.set("df", -1 if state.df else 1)
        self.set("eflags", 0x202)
        self.set("mode", mode)
        self.set("cpl", 3)
        self.set("cr0", 0x80050033)
        self.set("cr4", 0x3506F0)
        self.set("xcr0", 3)
        self.set("seg_base", state.fs_base, Seg.FS)
        self.set("seg_base", state.gs_base, Seg.GS)
        self.set("mxcsr", state.mxcsr)
        for i, value in enumerate(state.xmm):
            at = _XMM + XMM_STRIDE * i
            self.data[at : at + 16] = value.to_bytes(16, "little")
        fpu = state.fpu
        for name, value in (("fpu_control", fpu.control), ("fpu_status", fpu.status), ("fpu_top", fpu.top)):
            self.set(name, value)
        at, tags = STATE.offset("fpregs"), STATE.offset("fpu_tags")
        for i, value in enumerate(fpu.regs):
            self.data[at + 16 * i : at + 16 * i + 10] = value.to_bytes(10, "little")
            self.data[tags + i] = fpu.empty >> i & 1

    def take(self, before: State) -> State:
        """The state back; `before` gives what env does not hold."""
        state = before.copy()
        state.regs = [self.get("regs", i) for i in range(16)]
        state.lazy = (self.get("cc_op"), self.get("cc_dst"), self.get("cc_src"), self.get("cc_src2"))
        state.flags = status(CcOp(state.lazy[0]), *state.lazy[1:])
        state.df = self.get("df") == M64
        state.mxcsr = self.get("mxcsr")
        state.xmm = [int.from_bytes(self.data[_XMM + XMM_STRIDE * i :][:16], "little") for i in range(16)]
        at, tags = STATE.offset("fpregs"), STATE.offset("fpu_tags")
        state.fpu = Fpu(
            self.get("fpu_control"),
            self.get("fpu_status"),
            self.get("fpu_top"),
            sum(1 << i for i in range(8) if self.data[tags + i]),
            [int.from_bytes(self.data[at + 16 * i :][:10], "little") for i in range(8)],
        )
        return state


def hole_values(pattern: Pattern, code: bytes, pc: int) -> dict[str, int]:
    """What the native assembler would patch into the holes for this encoding."""
    mask = 0xFFFFFFFF if pattern.wrap else M64
    next_pc = (pc + pattern.length) & mask

    def signed(place: tuple[int, int]) -> int:
        at, size = place
        return int.from_bytes(code[at : at + size], "little", signed=True)

    values = {"pc": pc, "next_pc": next_pc, "disp": 0}
    if pattern.disp[1]:
        disp = signed(pattern.disp)
        values["disp"] = (next_pc + disp) & mask if pattern.disp_pc_relative else disp
    if pattern.imm[1]:
        values["imm"] = signed(pattern.imm)
        values["target"] = (next_pc + values["imm"]) & mask
    if pattern.imm2[1]:
        values["imm2"] = signed(pattern.imm2)
    for i, value in enumerate(pattern.regs):
        values[HoleSlot(HoleSlot.R0 + i).name.lower()] = value
    return values


class SpecError(AssertionError):
    """A form's declared properties do not hold for what its IR does."""


@functools.cache
def frontend() -> X86Frontend:
    for name in HELPER_MODULES:
        if importlib.util.find_spec(f"frontends.x86.helpers.{name}") is not None:
            importlib.import_module(f"frontends.x86.helpers.{name}")
    return X86Frontend()


@dataclass(frozen=True, slots=True)
class Translated:
    """One encoding's pattern and its IR for some variants."""

    code: bytes
    pattern: Pattern
    mode: int


_BLOCKS: dict[tuple[object, Variant], Block] = {}


def block_of(pattern: Pattern, variant: Variant) -> Block:
    key = (pattern.form.key, variant)
    block = _BLOCKS.get(key)
    if block is None:
        builder = Builder()
        frontend().emit(pattern.form, variant, builder)
        block = _BLOCKS[key] = builder.block
    return block


class Helpers(Mapping[str, Callable[..., "int | None"]]):
    """Natives by declared name, run as plain Python on the raw env; pending exceptions become faults."""

    def __init__(self, env: Env) -> None:
        self.env = env

    def __getitem__(self, name: str) -> Callable[..., "int | None"]:
        native = NATIVE[f"helper_{name}"]

        def call(access: EnvAccess, *args: int) -> int | None:
            result = native(self.env.hva, *args)
            if self.env.get("exception"):
                raise GuestFault(self.env.get("exception_index"), self.env.get("error_code"))
            return None if result is None else int(result) & M64

        return call

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(NATIVE)

    def __len__(self) -> int:
        return len(NATIVE)


class Ours:
    """Runs one instruction on the interpreter, checking what its form declares."""

    def __init__(self, fp: Callable[[Env], FpAccess] | None = None) -> None:
        self.env = Env()
        self.helpers = Helpers(self.env)
        self.fp = fp(self.env) if fp is not None else None

    def decode(self, code: bytes, pc: int, mode: int) -> Pattern:
        return frontend().decode(code.ljust(15, b"\x90"), pc, mode)

    def step(self, pattern: Pattern, code: bytes, pc: int, mode: int, before: State, variant: Variant) -> Result:
        self.env.put(before, mode)
        memory = GuestMemory(bytearray(before.memory), DATA)
        holes = hole_values(pattern, code, pc)
        outcome = run(block_of(pattern, variant), self.env.data, memory, self.helpers, holes, self.fp)
        return self._result(outcome, before, memory, holes)

    def _result(self, outcome: Outcome, before: State, memory: GuestMemory, holes: Mapping[str, int]) -> Result:
        after = self.env.take(before)
        after.memory = bytes(memory.data)
        match outcome.kind:
            case "next":
                return Result(after, holes["next_pc"])
            case "goto_tb" | "goto_ptr" | "exit":
                return Result(after, outcome.pc)
        return Result(after, outcome.pc, outcome.vector)

    def check_form(
        self, pattern: Pattern, code: bytes, pc: int, mode: int, before: State, rng: random.Random
    ) -> Result:
        """Run every variant that the translator may choose for this form; all must agree. The live one's result."""
        form = pattern.form
        result = self.step(pattern, code, pc, mode, before, Variant())
        op = before.lazy[0]
        if form.reads_status:
            known = self.step(pattern, code, pc, mode, before, Variant(True, op))
            self._same(result, known, "status_in", form.name)
        elif form.kills_status and result.fault < 0:
            poisoned = before.copy()
            poisoned.lazy = (int(CcOp.EFLAGS), M64, ~before.flags & 0x8D5, M64)
            blind = self.step(pattern, code, pc, mode, poisoned, Variant())
            self._same(result, blind, "kills_status", form.name)
        dead = self.step(pattern, code, pc, mode, before, Variant(False, op if form.reads_status else 0))
        self._same(result, dead, "status_live=False", form.name, flags=False)
        if result.fault >= 0:
            self._same(Result(before, pc, result.fault), result, "precise fault", form.name)
        elif form.status_out == StatusOut.KEEP:
            if result.state.lazy != before.lazy:
                raise SpecError(f"{form.name}: declared KEEP, changes the lazy flags")
        elif form.status_out != StatusOut.UNKNOWN and result.state.lazy[0] != form.status_out:
            raise SpecError(f"{form.name}: leaves {result.state.lazy[0]}, declared {form.status_out}")
        return result

    def _same(self, a: Result, b: Result, what: str, name: str, *, flags: bool = True) -> None:
        wrong = differences(a, b, 0x8D5 if flags else 0)
        if wrong:
            raise SpecError(f"{name}: {what} changes {wrong}")


def differences(a: Result, b: Result, flags_mask: int, *, fpu: bool = True) -> list[str]:
    """What two results do not agree on, in words; flags outside flags_mask do not count."""
    wrong = []

    def differ(what: str, x: object, y: object) -> None:
        if x != y:
            show = (
                (lambda v: f"{v:#x}" if isinstance(v, int) else str(v)) if not isinstance(x, bytes) else lambda v: "..."
            )
            wrong.append(f"{what}: {show(x)} != {show(y)}")

    differ("fault", a.fault, b.fault)
    differ("pc", a.pc, b.pc)
    s, t = a.state, b.state
    for i in range(16):
        differ(f"r{i}", s.regs[i], t.regs[i])
    differ("flags", s.flags & flags_mask, t.flags & flags_mask)
    differ("df", s.df, t.df)
    for i in range(16):
        differ(f"xmm{i}", s.xmm[i], t.xmm[i])
    if fpu:
        differ("mxcsr", s.mxcsr, t.mxcsr)
        differ("fpu", s.fpu, t.fpu)
    if s.memory != t.memory:
        at = next(i for i in range(len(s.memory)) if s.memory[i] != t.memory[i])
        wrong.append(f"memory at {DATA + at:#x}: {s.memory[at : at + 16].hex()} != {t.memory[at : at + 16].hex()}")
    return wrong


__all__ = ["MODE32", "MODE64", "Env", "Operand", "Ours", "SpecError", "differences", "frontend", "hole_values"]
