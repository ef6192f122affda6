"""The reference interpreter: what a block of IR means. Slow, short, and the judge of every backend and rewrite rule.

The pure ops' meanings are in `integers` and `vectors`, the floating-point ones in `floats` (over `softfloat`); here are
state, memory, control and exits. Values are non-negative ints below 2^width, floats and vectors by their bits.
A breach of the IR's own contract (undefined division, offset outside its span, endless loop) raises InterpError.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from tcg.ir.block import Block, Const, EnvRef, HelperDecl, Op, Operand, Temp
from tcg.ir.floats import FLOAT_MEANINGS, FpAccess, FpRegisters
from tcg.ir.integers import INTEGER_MEANINGS, Meaning, UndefinedValue, signed
from tcg.ir.types import I64, MemOp
from tcg.ir.vectors import VECTOR_MEANINGS

PURE_MEANINGS: dict[str, Meaning] = {**INTEGER_MEANINGS, **VECTOR_MEANINGS}


class GuestFault(Exception):
    """Raised by Memory and helpers: the block ends with a guest exception at the current instruction."""

    def __init__(self, vector: int, error: int = 0, gva: int = 0) -> None:
        super().__init__(f"guest fault {vector} error {error:#x} at {gva:#x}")
        self.vector, self.error, self.gva = vector, error, gva


class LeaveBlock(Exception):
    """Raised by a MAY_FAULT helper that leaves the block without a guest exception (halt, state change)."""

    def __init__(self, reason: int, pc: int) -> None:
        super().__init__(f"leave with reason {reason} to {pc:#x}")
        self.reason, self.pc = reason, pc


class InterpError(Exception):
    """The block did something that the IR does not define."""


class Memory(Protocol):
    """Guest memory. Values are memop.size bytes wide, already in memop's byte order; both may raise GuestFault."""

    def load(self, gva: int, memop: MemOp) -> int: ...

    def store(self, gva: int, memop: MemOp, value: int) -> None: ...


class FlatMemory:
    """`data` at gva `base`, nothing else: an access outside faults with (vector, error)."""

    def __init__(self, data: bytearray, base: int = 0, vector: int = 14, error: int = 0) -> None:
        self.data, self.base, self.vector, self.error = data, base, vector, error

    def _place(self, gva: int, memop: MemOp) -> slice:
        at = gva - self.base
        if not 0 <= at <= len(self.data) - memop.size or gva % memop.align:
            raise GuestFault(self.vector, self.error, gva)
        return slice(at, at + memop.size)

    def load(self, gva: int, memop: MemOp) -> int:
        return int.from_bytes(self.data[self._place(gva, memop)], "big" if memop.big_endian else "little")

    def store(self, gva: int, memop: MemOp, value: int) -> None:
        self.data[self._place(gva, memop)] = value.to_bytes(memop.size, "big" if memop.big_endian else "little")


class EnvAccess:
    """What a helper sees: guest state by byte offset (little-endian, as native code lays it out) and guest memory."""

    def __init__(self, data: bytearray | memoryview, memory: Memory) -> None:
        self.data, self.memory = data, memory

    def load(self, offset: int, size: int) -> int:
        if not 0 <= offset <= len(self.data) - size:
            raise InterpError(f"env access at {offset:#x}, size {size}")
        return int.from_bytes(self.data[offset : offset + size], "little")

    def store(self, offset: int, size: int, value: int) -> None:
        if not 0 <= offset <= len(self.data) - size:
            raise InterpError(f"env access at {offset:#x}, size {size}")
        self.data[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


Helper = Callable[..., int | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the block was left.

    kind: "next" (fell off the end), "goto_tb" (pc, slot), "goto_ptr" (pc), "exit" (pc, reason), "raise" (the op:
    vector, error), "fault" (memory or a helper: vector, error, gva).
    pc of next, raise and fault: the current instruction's.
    """

    kind: str
    pc: int = 0
    slot: int = 0
    reason: int = 0
    vector: int = 0
    error: int = 0
    gva: int = 0


def _modify(name: str, old: int, value: int) -> int:
    return {
        "atomic_xchg": value,
        "atomic_add": old + value,
        "atomic_sub": old - value,
        "atomic_and": old & value,
        "atomic_or": old | value,
        "atomic_xor": old ^ value,
    }[name]


class _Run:
    """One execution: temps' values and the current instruction's pc beside the state it works on."""

    def __init__(self, env: EnvAccess, helpers: Mapping[str, Helper], holes: Mapping[str, int], fp: FpAccess) -> None:
        self.env, self.helpers, self.holes, self.fp = env, helpers, holes, fp
        self.memory = env.memory
        self.values: dict[Temp, int] = {}
        self.pc = 0

    def value(self, operand: Operand) -> int:
        if isinstance(operand, Temp):
            if operand not in self.values:
                raise InterpError(f"%{operand.id} is used before it is assigned")
            return self.values[operand]
        if isinstance(operand, Const):
            return operand.value
        if operand.name not in self.holes:
            raise InterpError(f"hole ${operand.name} has no value")
        return self.holes[operand.name] & operand.type.mask

    def offset(self, ref: EnvRef) -> int:
        return ref.offset + (signed(self.value(ref.hole), ref.hole.type.width) if ref.hole is not None else 0)

    def indexed(self, op: Op, delta: int, size: int) -> int:
        if not 0 <= delta <= op.attrs["span"] - size:
            raise InterpError(f"{op.name} {delta:#x} beyond its span {op.attrs['span']:#x}")
        return self.offset(op.attrs["ref"]) + delta

    def assign(self, temp: Temp, value: int) -> None:
        if not 0 <= value <= temp.type.mask:
            raise InterpError(f"{value:#x} is no {temp.type}")
        self.values[temp] = value


def _ld(run: _Run, op: Op) -> None:
    run.assign(op.outs[0], run.env.load(run.offset(op.attrs["ref"]), op.outs[0].type.size))


def _st(run: _Run, op: Op, value: int) -> None:
    run.env.store(run.offset(op.attrs["ref"]), op.ins[0].type.size, value)


def _ldx(run: _Run, op: Op, delta: int) -> None:
    size = op.outs[0].type.size
    run.assign(op.outs[0], run.env.load(run.indexed(op, delta, size), size))


def _stx(run: _Run, op: Op, delta: int, value: int) -> None:
    size = op.ins[1].type.size
    run.env.store(run.indexed(op, delta, size), size, value)


def _qemu_ld(run: _Run, op: Op, gva: int) -> None:
    memop: MemOp = op.attrs["memop"]
    value = run.memory.load(gva, memop)
    run.assign(op.outs[0], signed(value, memop.size * 8) & op.outs[0].type.mask if memop.signed else value)


def _qemu_st(run: _Run, op: Op, gva: int, value: int) -> None:
    memop: MemOp = op.attrs["memop"]
    run.memory.store(gva, memop, value & ((1 << memop.size * 8) - 1))


def _atomic(run: _Run, op: Op, gva: int, value: int) -> None:
    memop: MemOp = op.attrs["memop"]
    old = run.memory.load(gva, memop)
    run.memory.store(gva, memop, _modify(op.name, old, value) & op.outs[0].type.mask)
    run.assign(op.outs[0], old)


def _atomic_cmpxchg(run: _Run, op: Op, gva: int, expected: int, new: int) -> None:
    """x86's CMPXCHG writes the old value back on a mismatch, so the page must be writable either way."""
    memop: MemOp = op.attrs["memop"]
    old = run.memory.load(gva, memop)
    run.memory.store(gva, memop, new if old == expected else old)
    run.assign(op.outs[0], old)


def _call(run: _Run, op: Op, *args: int) -> None:
    helper: HelperDecl = op.attrs["helper"]
    result = run.helpers[helper.name](run.env, *args)
    if helper.ret is not None:
        if result is None:
            raise InterpError(f"helper {helper.name} gave no value")
        run.assign(op.outs[0], result & helper.ret.mask)


def _insn_start(run: _Run, op: Op, pc: int) -> None:
    run.pc = pc


def _nothing(run: _Run, op: Op) -> None:
    """label, mb: no effect on one thread."""


STATE_MEANINGS: dict[str, Callable[..., None]] = {
    "ld": _ld,
    "st": _st,
    "ldx": _ldx,
    "stx": _stx,
    "qemu_ld": _qemu_ld,
    "qemu_st": _qemu_st,
    **{f"atomic_{name}": _atomic for name in ("xchg", "add", "sub", "and", "or", "xor")},
    "atomic_cmpxchg": _atomic_cmpxchg,
    "mb": _nothing,
    "label": _nothing,
    "call": _call,
    "insn_start": _insn_start,
}

EXIT_MEANINGS: dict[str, Callable[..., Outcome]] = {
    "goto_tb": lambda run, op, pc: Outcome("goto_tb", pc, slot=op.attrs["slot"]),
    "goto_ptr": lambda run, op, pc: Outcome("goto_ptr", pc),
    "exit": lambda run, op, pc: Outcome("exit", pc, reason=int(op.attrs["reason"])),
    "raise": lambda run, op, error: Outcome("raise", run.pc, vector=int(op.attrs["vector"]), error=error),
}

BRANCHES = ("br", "brcond")

MEANINGS = frozenset((*PURE_MEANINGS, *FLOAT_MEANINGS, *STATE_MEANINGS, *EXIT_MEANINGS, *BRANCHES))
"""The ops that this interpreter can run (tests/test_completeness.py)."""


def evaluate(op: Op, values: tuple[int, ...]) -> tuple[int, ...] | None:
    """The outputs of a pure op for these inputs; None when the op is not pure or has no meaning for them."""
    meaning = PURE_MEANINGS.get(op.name)
    if meaning is None:
        return None
    try:
        result = meaning(op, *values)
    except UndefinedValue:
        return None
    return result if isinstance(result, tuple) else (result,)


def run(
    block: Block,
    env: bytearray | memoryview,
    memory: Memory,
    helpers: Mapping[str, Helper] | None = None,
    holes: Mapping[str, int] | None = None,
    fp: FpAccess | None = None,
    limit: int = 1_000_000,
) -> Outcome:
    """Execute `block` on env and memory. helpers: by declared name, called as helper(EnvAccess, *args).

    holes: values by hole name, signed or not. fp: the guest's FP control and flags (default: fresh registers).
    limit: ops to execute before a loop counts as endless.
    """
    ops = block.ops
    labels = {op.attrs["label"]: i for i, op in enumerate(ops) if op.name == "label"}
    state = _Run(EnvAccess(env, memory), helpers or {}, holes or {}, fp or FpRegisters())
    at = 0
    try:
        while at < len(ops):
            op = ops[at]
            at += 1
            limit -= 1
            if limit < 0:
                raise InterpError("endless loop")
            name = op.name
            values = [state.value(operand) for operand in op.ins]
            if name in PURE_MEANINGS:
                result = PURE_MEANINGS[name](op, *values)
                for temp, value in zip(op.outs, result if isinstance(result, tuple) else (result,), strict=True):
                    state.assign(temp, value)
            elif name in STATE_MEANINGS:
                STATE_MEANINGS[name](state, op, *values)
            elif name in FLOAT_MEANINGS:
                state.assign(op.outs[0], FLOAT_MEANINGS[name](op, state.fp, state.env, *values))
            elif name in EXIT_MEANINGS:
                return EXIT_MEANINGS[name](state, op, *values)
            elif name == "br" or (name == "brcond" and values[0]):
                at = labels[op.attrs["label"]]
    except GuestFault as fault:
        return Outcome("fault", state.pc, vector=fault.vector, error=fault.error, gva=fault.gva)
    except LeaveBlock as leave:
        return Outcome("exit", leave.pc & I64.mask, reason=leave.reason)
    except UndefinedValue as undefined:
        raise InterpError(str(undefined)) from undefined
    return Outcome("next", state.pc)
