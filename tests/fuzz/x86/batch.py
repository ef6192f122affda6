"""One encoding over many states at once: our compiled stencil against the host CPU, compared as arrays.

The interpreter and Unicorn are asked by `harness.run_case`, about a sample or where the host cannot be asked.
"""

import ctypes
import functools
import random
from dataclasses import dataclass

import numpy as np
from unit.backends.llvm.laying import gates
from unit.frontends.x86.helpers.x86guest import load_runtime

from frontends.x86.flags import CcOp, status
from frontends.x86.state import STATE, XMM_STRIDE, Reg
from fuzz.x86.cases import Case
from fuzz.x86.native_host import NO_FAULT, WORDS, NativeHost
from fuzz.x86.ours import MODE32, MODE64, Env, block_of, hole_values
from fuzz.x86.state import DATA_SIZE, M64, MIDDLE, Fpu, Result, State, random_lazy, random_word
from fuzz.x86.stencils import _FELL_THROUGH, StencilRunner
from tcg.exec.forms import Pattern, Stencil, Variant
from tcg.opt.pipeline import optimize
from tcg.runtime.layout import GUEST_BASE, ExitReason

_STATUS, _STICKY, _DF = 0x8D5, 0x3F, 0x400
_XMM, _FP, _TAGS = STATE.offset("xmm"), STATE.offset("fpregs"), STATE.offset("fpu_tags")
LIVE, DEAD = Variant(), Variant(False, 0)
Array = np.ndarray


# --- states -----------------------------------------------------------------------------------------------------------
@functools.cache
def _pools() -> tuple[list[int], list[int], list[tuple[tuple[int, int, int, int], int]]]:
    """Words of 64 and 32 bits, and lazy flags with what they say."""
    rng = random.Random("pools")
    lazies = [random_lazy(rng) for _ in range(1 << 13)]
    words = [[random_word(rng, bits) for _ in range(1 << 14)] for bits in (64, 32)]
    return words[0], words[1], [(lazy, status(CcOp(lazy[0]), *lazy[1:])) for lazy in lazies]


def quick_state(rng: random.Random, code64: bool, memory: bytes, vectors: list[int]) -> State:
    """As state.random_state, from pools of the same values."""
    words64, words32, lazies = _pools()
    regs = rng.choices(words64, k=16) if code64 else rng.choices(words32, k=8) + [0] * 8
    regs[Reg.RSP] = MIDDLE + 8 * rng.randrange(-64, 64)
    lazy, flags = rng.choice(lazies)
    xmm = rng.choices(vectors, k=16)
    base = 0x2000_0800
    return State(regs, flags, lazy, rng.randrange(4) == 0, xmm, memory=memory, fs_base=base, gs_base=base + 0x800)


# --- our side ---------------------------------------------------------------------------------------------------------
class BatchStencils(StencilRunner):
    """Compiled stencils with the compiled helpers behind them."""

    def _define_helpers(self) -> None:
        super()._define_helpers()
        runtime = load_runtime()
        self._runtime = runtime
        for name in self.machine.helpers:
            if name.startswith("helper_x86_") and name in set(runtime.exports):
                self.machine.helpers[name] = runtime.address(name)

    def __init__(self) -> None:
        super().__init__()
        for name in ("exception", "exit_slot"):
            self.machine.view.set(name, 0)
        self.machine.view.set("exit_reason", _FELL_THROUGH)
        self.common = self.machine.read_env(0, GUEST_BASE)

    def compile_all(self, patterns: list[Pattern]) -> None:
        """All at once; the variant with dead flags only where its IR is another."""
        wanted = {(p.form.key, v): p for p in patterns for v in (LIVE, DEAD) if (p.form.key, v) not in self._stencils}
        made = self.compiler.compile([(p.form.name, optimize(block_of(p, v))) for (_, v), p in wanted.items()])
        self._stencils.update(zip(wanted, made, strict=True))

    def variants(self, pattern: Pattern) -> list[tuple[Variant, Stencil]]:
        live, dead = (self._stencils[pattern.form.key, v] for v in (LIVE, DEAD))
        return [(LIVE, live)] if dead == live else [(LIVE, live), (DEAD, dead)]

    def run_batch(self, stencil: Stencil, holes: dict[str, int], images: Array, memories: list[bytes]) -> "Ran":
        machine, move = self.machine, ctypes.memmove
        machine.top = self._top
        code = machine.lay([(stencil, holes)], self._exits)
        enter = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(gates()["enter"])
        count = len(memories)
        env = np.empty_like(images)
        memory = np.empty((count, DATA_SIZE), np.uint8)
        source, row, out = images.ctypes.data, env.ctypes.data, memory.ctypes.data
        env_at, ram_at = machine.env_at, machine.ram_at
        for data in memories:
            move(env_at, source, STATE.size)
            move(ram_at, data, DATA_SIZE)
            enter(env_at, code)
            move(row, env_at, STATE.size)
            move(out, ram_at, DATA_SIZE)
            source, row, out = source + STATE.size, row + STATE.size, out + DATA_SIZE
        return Ran(env, memory)


@functools.cache
def batch_stencils() -> BatchStencils:
    return BatchStencils()


@functools.cache
def native_host() -> NativeHost:
    return NativeHost()


def column(images: Array, name: str, index: int = 0) -> Array:
    at, size = STATE.offset(name, index), STATE.fields[name].size
    return np.ascontiguousarray(images[:, at : at + size]).view(f"<u{size}")[:, 0]


def _put(images: Array, name: str, values: object, index: int = 0) -> None:
    at, size = STATE.offset(name, index), STATE.fields[name].size
    rows = np.asarray(values, dtype=f"<u{size}").reshape(len(images), 1)
    images[:, at : at + size] = rows.view(np.uint8)


@dataclass(frozen=True, slots=True)
class Ran:
    """env and data region after each run."""

    env: Array
    memory: Array

    def gprs(self) -> Array:
        at = STATE.offset("regs")
        return np.ascontiguousarray(self.env[:, at : at + 128]).view("<u8")

    def xmm(self) -> Array:
        return self.env[:, _XMM : _XMM + 16 * XMM_STRIDE].reshape(len(self.env), 16, XMM_STRIDE)[:, :, :16]

    def fpregs(self) -> Array:
        return self.env[:, _FP : _FP + 128].reshape(len(self.env), 8, 16)[:, :, :10]

    def faults(self) -> Array:
        return np.where(column(self.env, "exception") != 0, column(self.env, "exception_index").astype(np.int64), -1)

    def pcs(self, holes: dict[str, int]) -> Array:
        reason, slot, pc = column(self.env, "exit_reason"), column(self.env, "exit_slot"), column(self.env, "pc")
        chained = np.where(slot != 0, np.uint64(holes["next_pc"]), np.uint64(holes.get("target", 0)))
        pc = np.where(reason == ExitReason.CHAIN, chained, pc)
        pc = np.where(reason == _FELL_THROUGH, np.uint64(holes["next_pc"]), pc)
        return np.where(column(self.env, "exception") != 0, column(self.env, "pc"), pc)

    def lazy(self) -> list[tuple[int, int, int, int]]:
        names = ("cc_op", "cc_dst", "cc_src", "cc_src2")
        return list(zip(*(column(self.env, n).tolist() for n in names), strict=True))

    def mxcsr(self) -> Array:
        return column(self.env, "mxcsr") | column(self.env, "host_mxcsr") & np.uint32(_STICKY)

    def state(self, i: int, before: State) -> State:
        env = Env()
        env.data[:] = self.env[i].tobytes()
        after = env.take(before)
        after.memory = self.memory[i].tobytes()
        after.mxcsr = int(self.mxcsr()[i])
        return after


def images_of(states: list[State], mode: int) -> Array:
    """One env image a state, as StencilRunner.step would write it."""
    runner = batch_stencils()
    env = Env()
    env.put(states[0], mode)
    image = bytearray(env.data.tobytes())
    image[: len(runner.common)] = runner.common
    images = np.tile(np.frombuffer(bytes(image), np.uint8), (len(states), 1))
    at = STATE.offset("regs")
    images[:, at : at + 128] = np.array([s.regs for s in states], "<u8").view(np.uint8)
    lazy = list(zip(*(s.lazy for s in states), strict=True))
    for name, values in zip(("cc_op", "cc_dst", "cc_src", "cc_src2"), lazy, strict=True):
        _put(images, name, values)
    _put(images, "df", [M64 if s.df else 1 for s in states])
    for name in ("mxcsr", "host_mxcsr"):
        _put(images, name, [s.mxcsr for s in states])
    xmm = b"".join(v.to_bytes(16, "little") for s in states for v in s.xmm)
    into = images[:, _XMM : _XMM + 16 * XMM_STRIDE].reshape(len(states), 16, XMM_STRIDE)
    into[:, :, :16] = np.frombuffer(xmm, np.uint8).reshape(len(states), 16, 16)
    images[:, _XMM : _XMM + 16 * XMM_STRIDE] = into.reshape(len(states), -1)
    for name, values in (
        ("fpu_control", [s.fpu.control for s in states]),
        ("fpu_status", [s.fpu.status for s in states]),
    ):
        _put(images, name, values)
    _put(images, "fpu_top", [s.fpu.top for s in states])
    for i in range(8):
        images[:, _TAGS + i] = [s.fpu.empty >> i & 1 for s in states]
    regs = b"".join(v.to_bytes(16, "little") for s in states for v in s.fpu.regs)
    images[:, _FP : _FP + 128] = np.frombuffer(regs, np.uint8).reshape(len(states), 128)
    return images


# --- the host's side --------------------------------------------------------------------------------------------------
def host_words(states: list[State]) -> Array:
    rows = [[*s.regs, 0x202 | s.flags | (_DF if s.df else 0), 0, 0, 0, s.fs_base, s.gs_base] for s in states]
    words = np.array(rows, np.uint64)
    assert words.shape[1] == WORDS
    return words


def fx_images(states: list[State], images: Array) -> Array:
    """FXSAVE images (SDM vol. 1, table 10-2) from env images."""
    ran = Ran(images, images)
    count = len(states)
    fx = np.zeros((count, 512), np.uint8)
    top = column(images, "fpu_top").astype(np.int64)
    fx[:, 0:2] = column(images, "fpu_control").astype("<u2").reshape(-1, 1).view(np.uint8)
    word = column(images, "fpu_status").astype(np.int64) & ~0x3800 | top << 11
    fx[:, 2:4] = word.astype("<u2").reshape(-1, 1).view(np.uint8)
    fx[:, 4] = ~np.packbits(images[:, _TAGS : _TAGS + 8], axis=1, bitorder="little")[:, 0]
    fx[:, 24:28] = column(images, "mxcsr").reshape(-1, 1).view(np.uint8)
    fx[:, 28:30] = 0xFF
    places = (top[:, None] + np.arange(8)) & 7
    stack = np.take_along_axis(ran.fpregs(), places[:, :, None], axis=1)
    fx[:, 32:160].reshape(count, 8, 16)[:, :, :10] = stack
    into = np.zeros((count, 8, 16), np.uint8)
    into[:, :, :10] = stack
    fx[:, 32:160] = into.reshape(count, 128)
    fx[:, 160:416] = ran.xmm().reshape(count, 256)
    return fx


def state_of_host(words: Array, fx: Array, memory: Array, before: State) -> State:
    after = before.copy()
    after.regs = [int(v) for v in words[:16]]
    flags = int(words[16])
    after.flags, after.df = flags & _STATUS, bool(flags & _DF)
    after.memory = memory.tobytes()
    image = fx.tobytes()
    word = int.from_bytes(image[2:4], "little")
    top = word >> 11 & 7
    regs = [0] * 8
    for i in range(8):
        regs[top + i & 7] = int.from_bytes(image[32 + 16 * i :][:10], "little")
    after.fpu = Fpu(int.from_bytes(image[0:2], "little"), word & ~0x3800, top, ~image[4] & 0xFF, regs)
    after.mxcsr = int.from_bytes(image[24:28], "little")
    after.xmm = [int.from_bytes(image[160 + 16 * i :][:16], "little") for i in range(16)]
    return after


# --- comparison -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Batch:
    """One encoding, its states, and what our stencil made of them."""

    case: Case
    pattern: Pattern
    pc: int
    states: list[State]
    holes: dict[str, int]
    images: Array
    ran: Ran
    faults: Array
    pcs: Array
    flags: Array

    def result(self, i: int) -> Result:
        return Result(self.ran.state(i, self.states[i]), int(self.pcs[i]), int(self.faults[i]))


def run_stencils(case: Case, pattern: Pattern, pc: int, states: list[State]) -> tuple[Batch, list[tuple[int, str]]]:
    """Every variant over all states; rows where the variants differ, or a fault is not precise."""
    runner = batch_stencils()
    mode = MODE64 if case.code64 else MODE32
    images = images_of(states, mode)
    memories = [s.memory for s in states]
    holes = hole_values(pattern, case.code, pc)
    wrong: list[tuple[int, str]] = []
    (_, live), *others = runner.variants(pattern)
    ran = runner.run_batch(live, holes, images, memories)
    faults, pcs = ran.faults(), ran.pcs(holes)
    lazies = ran.lazy()
    flags = np.array(
        [
            s.flags if lazy == s.lazy else status(CcOp(lazy[0]), *lazy[1:])
            for s, lazy in zip(states, lazies, strict=True)
        ],
        np.int64,
    )
    batch = Batch(case, pattern, pc, states, holes, images, ran, faults, pcs, flags)
    for variant, stencil in others:
        other = runner.run_batch(stencil, holes, images, memories)
        same = (
            (other.faults() == faults)
            & (other.pcs(holes) == pcs)
            & (other.gprs() == ran.gprs()).all(1)
            & (other.xmm() == ran.xmm()).all((1, 2))
            & (fx_images(states, other.env) == fx_images(states, ran.env)).all(1)
            & (column(other.env, "df") == column(ran.env, "df"))
            & (other.memory == ran.memory).all(1)
        )
        wrong += [(int(i), f"{variant} differs") for i in np.flatnonzero(~same)]
    if (faults >= 0).any():
        before = Ran(images, ran.memory)
        given = np.array([s.flags for s in states], np.int64)
        memory = np.array([np.frombuffer(m, np.uint8) for m in memories])
        precise = (
            (pcs == np.uint64(pc))
            & (before.gprs() == ran.gprs()).all(1)
            & (before.xmm() == ran.xmm()).all((1, 2))
            & (before.fpregs() == ran.fpregs()).all((1, 2))
            & (flags == given)
            & (memory == ran.memory).all(1)
        )
        wrong += [(int(i), f"fault {faults[i]} is not precise") for i in np.flatnonzero((faults >= 0) & ~precise)]
    return batch, wrong


HostRows = tuple[Array, Array, Array]


def run_host(batch: Batch, *, branches: bool) -> HostRows:
    words, fx = host_words(batch.states), fx_images(batch.states, batch.images)
    memory = np.empty((len(batch.states), DATA_SIZE), np.uint8)
    memories = [s.memory for s in batch.states]
    case = batch.case
    native_host().run(case.code, batch.pc, case.code64, words, fx, memories, memory, branches=branches)
    if not case.code64:
        words[:, :8] &= np.uint64(0xFFFFFFFF)
        words[:, 8:16] = np.array([s.regs[8:] for s in batch.states], np.uint64)
        fx[:, 288:416] = fx_images(batch.states, batch.images)[:, 288:416]
    return words, fx, memory


def suspects(batch: Batch, host: HostRows, flags_mask: int, *, fpu: bool) -> list[int]:
    """Rows where the host says otherwise (before anybody overlooks undefined things)."""
    words, fx, memory = host
    host_faults = np.where(words[:, 17] == np.uint64(NO_FAULT), -1, words[:, 17].astype(np.int64))
    ours = fx_images(batch.states, batch.ran.env)
    ours[:, 24:28] = batch.ran.mxcsr().reshape(-1, 1).view(np.uint8)
    masks = np.zeros(512, np.uint8)
    masks[160:416] = 0xFF
    if fpu:
        masks[[0, 1, 2, 3, 4, 24, 25, 26, 27]] = 0xFF
        for i in range(8):
            masks[32 + 16 * i : 42 + 16 * i] = 0xFF
    df = column(batch.ran.env, "df") == np.uint64(M64)
    same = (
        (batch.pcs == words[:, 18])
        & (batch.ran.gprs() == words[:, :16]).all(1)
        & ((batch.flags ^ words[:, 16].astype(np.int64)) & flags_mask == 0)
        & (df == ((words[:, 16] & np.uint64(_DF)) != 0))
        & ((ours ^ fx) & masks == 0).all(1)
        & (batch.ran.memory == memory).all(1)
    )
    good = (host_faults == batch.faults) & (same | (batch.faults >= 0))
    return [int(i) for i in np.flatnonzero(~good)]


def host_result(batch: Batch, host: HostRows, i: int) -> Result:
    words, fx, memory = host
    fault = -1 if words[i, 17] == np.uint64(NO_FAULT) else int(words[i, 17])
    if fault >= 0:
        return Result(batch.states[i], batch.pc, fault)
    return Result(state_of_host(words[i], fx[i], memory[i], batch.states[i]), int(words[i, 18]))
