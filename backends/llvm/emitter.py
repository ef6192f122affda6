"""IR to LLVM text, the frame: one `ModuleText` a batch, one `Emitter` a block; `lower` and its families fill in ops.

Text rather than LLVM's API: a few string joins an op, one parse a batch.

Holes are absolute symbols, so that they become the immediates and displacements of the host's instructions, where a
relocation tells the place. What keeps LLVM from believing too much about them:
* `extern_weak`: an ordinary global would be known to differ from 0 and from every other global;
* `!absolute_symbol` bounds: narrow ints get the unsigned range of their type and 64-bit ones must fit a signed 32-bit
  field: within these, instruction selection takes immediates. A wider one is moved in by `movabs` in inline asm, since
  the small code model would believe that any symbol fits 32 bits;
* a hole plus a constant may be computed relative to rip or overflow the field: `stencils` notices and asks for the
  block again with `opaque` holes, which are moved into a register first.
"""

from collections.abc import Callable
from typing import Any

from backends.llvm.host import Host
from tcg.ir.block import Block, Const, EnvRef, Hole, Op, Operand, Temp
from tcg.ir.types import F32, F64, F80, I1, I8, I16, I32, I64, I128, V128, Type
from tcg.runtime.layout import ENV

LLVM_TYPE = {
    I1: "i1",
    I8: "i8",
    I16: "i16",
    I32: "i32",
    I64: "i64",
    I128: "i128",
    F32: "float",
    F64: "double",
    F80: "x86_fp80",
    V128: "<2 x i64>",
}

LIKELY, UNLIKELY = "!prof !0", "!prof !1"
TBAA_ENV, TBAA_TLB, TBAA_RAM, TBAA_JC = "!tbaa !6", "!tbaa !7", "!tbaa !8", "!tbaa !9"
_METADATA = """
!0 = !{!"branch_weights", i32 2000, i32 1}
!1 = !{!"branch_weights", i32 1, i32 2000}
!2 = !{!"tessera"}
!3 = !{!"env", !2, i64 0}
!4 = !{!"tlb", !2, i64 0}
!5 = !{!"ram", !2, i64 0}
!6 = !{!3, !3, i64 0}
!7 = !{!4, !4, i64 0}
!8 = !{!5, !5, i64 0}
!9 = !{!10, !10, i64 0}
!10 = !{!"jc", !2, i64 0}
!11 = !{i32 1, !"override-stack-alignment", i32 8}
!llvm.module.flags = !{!11}
"""
SYMBOL_PREFIX = "st_"
HOLE_PREFIX = "h_"


class Unsupported(Exception):
    """The block asks for something that this host cannot do (a bug of ours or a very old host CPU)."""


class ModuleText:
    """One LLVM module as text: declarations by name, functions in order."""

    def __init__(self, host: Host, *, parallel: bool = False) -> None:
        self.host = host
        self.parallel = parallel
        self._declares: dict[str, str] = {}
        self._holes: dict[tuple[str, int, int], str] = {}
        self._functions: list[str] = []
        for name in ("next", "exit0", "exit1", "leave"):
            self.declare(name, f"declare preserve_nonecc void @{name}(ptr)")

    def declare(self, name: str, line: str) -> str:
        """Declare a function once; a second signature for one name is our bug."""
        known = self._declares.setdefault(name, line)
        assert known == line, f"{known} / {line}"
        return f"@{name}"

    def intrinsic(self, name: str, result: str, *args: str) -> str:
        return self.declare(name, f"declare {result} @{name}({', '.join(args)})")

    def hole_symbol(self, name: str, lo: int, end: int) -> str:
        """The absolute symbol for a hole with values in [lo, end): `h_<name>` plus a number for its bounds."""
        key = (name, lo, end)
        if key not in self._holes:
            symbol = f"{HOLE_PREFIX}{name}.{len(self._holes)}"
            self._holes[key] = f"@{symbol}"
            self._declares[symbol] = f"@{symbol} = extern_weak global i8, !absolute_symbol !{{i64 {lo}, i64 {end}}}"
        return self._holes[key]

    def short_holes(self) -> frozenset[str]:
        """Symbols of the holes whose values fit a signed 32-bit field."""
        return frozenset(
            symbol[1:] for (_, lo, end), symbol in self._holes.items() if lo >= -(1 << 31) and end <= 1 << 31
        )

    def add_function(self, text: str) -> None:
        self._functions.append(text)

    def text(self) -> str:
        return "\n".join([*self._declares.values(), *self._functions, _METADATA])


def _scalar_bits(type_: Type, bits: int) -> str:
    """A constant of `type_` with these bits, as LLVM writes it."""
    if type_ is F80:
        return f"0xK{bits:020X}"
    if type_ is F32:
        return f"bitcast (i32 {bits} to float)"
    if type_ is F64:
        return f"0x{bits:016X}"
    if type_ is V128:
        return f"<i64 {bits & I64.mask}, i64 {bits >> 64}>"
    return str(bits)


def _is_canonical(bits: int) -> bool:
    """Whether LLVM can hold this f80: it knows no unnormals and pseudo-denormals (integer bit against the exponent)."""
    return bool(bits >> 63 & 1) == bool(bits >> 64 & 0x7FFF)


class Emitter:
    """Writes one block as one LLVM function whose only argument is env. Families of `lower` use its small methods."""

    def __init__(self, module: ModuleText, *, opaque: bool = False) -> None:
        self.module = module
        self.opaque = opaque
        self.lines: list[str] = []
        self.label = "entry"
        self.open = True  # the current basic block has no terminator yet
        self.exits: set[int] = set()
        self.insn_pc: Operand | None = None
        self.gvas: dict[Operand, str] = {}  # guest addresses as `lower_memory` uses them, since the last label
        self.holed: set[Operand] = set()  # temps that LLVM could write as hole plus something
        self.modify: dict[Op, Op] = {}  # qemu_ld and the qemu_st to the same place that follows it, both ways
        self.ops: list[Op] = []  # the block's
        self.compared: dict[Op, list[str]] = {}  # comparisons that were made with an earlier one
        self.shared: dict[Op, tuple[str, str]] = {}  # such a pair's store: (i1 whether it hits, host address)
        self.float_bits: dict[Operand, Operand] = {}  # integers that are the bits of a float
        self.volatile = False  # more than one guest memory access: none may be merged, split or repeated
        self._count = 0

    # --- text
    def new(self, text: str) -> str:
        """`%t = text`; gives the name."""
        self._count += 1
        name = f"%t{self._count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def new_label(self, hint: str) -> str:
        self._count += 1
        return f"{hint}{self._count}"

    def start(self, label: str) -> None:
        """Begin basic block `label`, falling into it when the current one is open."""
        if self.open:
            self.line(f"br label %{label}")
        self.lines.append(f"{label}:")
        self.label = label
        self.open = True

    def branch(self, condition: str, yes: str, no: str, weights: str = "") -> None:
        self.line(f"br i1 {condition}, label %{yes}, label %{no}" + (f", {weights}" if weights else ""))
        self.open = False

    def jump(self, label: str) -> None:
        self.line(f"br label %{label}")
        self.open = False

    def tail(self, target: str) -> None:
        """Leave the function to `target`, which takes env the way every stencil does."""
        self.line(f"musttail call preserve_nonecc void {target}(ptr %env)")
        self.line("ret void")
        self.open = False

    # --- operands
    def value(self, operand: Operand) -> str:
        if isinstance(operand, Temp):
            return f"%v{operand.id}"
        if isinstance(operand, Const):
            if operand.type is F80 and not _is_canonical(operand.value):
                return self._odd_f80(operand.value)
            return _scalar_bits(operand.type, operand.value)
        return self._hole(operand)

    def typed(self, operand: Operand) -> str:
        return f"{LLVM_TYPE[operand.type]} {self.value(operand)}"

    def _hole(self, hole: Hole) -> str:
        kind = hole.type
        if kind.kind != "int" or kind in (I1, I128):
            raise Unsupported(f"a hole of type {kind}")
        if kind is not I64 and not self.opaque:
            symbol = self.module.hole_symbol(hole.name, 0, 1 << kind.width)
            return f"ptrtoint (ptr {symbol} to {LLVM_TYPE[kind]})"
        if hole.lo >= -(1 << 31) and hole.hi < 1 << 31 and not self.opaque:
            return f"ptrtoint (ptr {self.module.hole_symbol(hole.name, hole.lo, hole.hi + 1)} to i64)"
        mnemonic, kind_text = "movabsq", LLVM_TYPE[kind]
        if kind is I64 and hole.lo >= -(1 << 31) and hole.hi < 1 << 31:
            mnemonic = "movq"
        elif kind is not I64:
            mnemonic = {I8: "movb", I16: "movw", I32: "movl"}[kind]
        return self.new(f'call {kind_text} asm "{mnemonic} $${HOLE_PREFIX}{hole.name}, $0", "=r"()')

    def _odd_f80(self, bits: int) -> str:
        """An f80 constant by way of memory."""
        low, high = self.env_at(ENV.offset("scratch", 6)), self.env_at(ENV.offset("scratch", 6) + 8)
        self.line(f"store volatile i64 {bits & I64.mask}, ptr {low}")
        self.line(f"store volatile i16 {bits >> 64}, ptr {high}")
        return self.new(f"load volatile x86_fp80, ptr {low}, align 1")

    def set(self, temp: Temp, text: str) -> None:
        """The op's result is the value of LLVM instruction `text`."""
        self.lines.append(f"  %v{temp.id} = {text}")

    def alias(self, temp: Temp, value: str) -> None:
        """The op's result is an LLVM value that already has a name."""
        kind = LLVM_TYPE[temp.type]
        if temp.type.kind == "float":
            self.set(temp, f"select i1 true, {kind} {value}, {kind} {value}")
        else:
            self.set(temp, f"bitcast {kind} {value} to {kind}")

    # --- env
    def env_at(self, offset: int) -> str:
        return self.new(f"getelementptr i8, ptr %env, i64 {offset}")

    def env_ref(self, ref: EnvRef) -> str:
        if ref.hole is None:
            return self.env_at(ref.offset)
        base = self.new(f"getelementptr i8, ptr %env, i64 {self._env_hole(ref.hole)}")
        return self.new(f"getelementptr i8, ptr {base}, i64 {ref.offset}") if ref.offset else base

    def _env_hole(self, hole: Hole) -> str:
        lo, hi = max(hole.lo, 0), min(hole.hi, (1 << 16) - 1)
        return f"ptrtoint (ptr {self.module.hole_symbol(hole.name, lo, hi + 1)} to i64)"

    def load_env(self, name: str, kind: str, index: int = 0) -> str:
        return self.new(f"load {kind}, ptr {self.env_at(ENV.offset(name, index))}, {TBAA_ENV}")

    def store_env(self, name: str, typed: str, index: int = 0) -> None:
        self.line(f"store {typed}, ptr {self.env_at(ENV.offset(name, index))}, {TBAA_ENV}")

    def store_pc(self) -> None:
        """env.pc = the pc of the guest instruction that this code belongs to."""
        assert self.insn_pc is not None, "no insn_start before an op that may fault"
        self.store_env("pc", f"i64 {self.value(self.insn_pc)}")

    def leave_if_exception(self) -> None:
        """After a call that may fault: go back to the exec loop when env.exception is set."""
        pending = self.new(f"icmp ne i32 {self.load_env('exception', 'i32')}, 0")
        out, on = self.new_label("out"), self.new_label("on")
        self.branch(pending, out, on, UNLIKELY)
        self.start(out)
        self.tail("@leave")
        self.start(on)

    def finish(self) -> str:
        """The function's body; falling off the end means the next guest instruction."""
        if self.open:
            self.tail("@next")
        return "\n".join(["entry:", *self.lines])


Lowering = Callable[[Emitter, Op], None]
LOWER: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering for the ops of these names."""

    def register(function: Lowering) -> Lowering:
        for name in names:
            assert name not in LOWER, name
            LOWER[name] = function
        return function

    return register


_ACCESSES = ("qemu_ld", "qemu_st", "call", "mb")  # what may touch guest memory or the TLB


def _touches_memory(op: Op) -> bool:
    return op.name in _ACCESSES or op.name.startswith("atomic_")


def _modified_places(block: Block) -> dict[Op, Op]:
    """Loads with the store to the same place that follows with nothing but computation between (inc [mem])."""
    pairs: dict[Op, Op] = {}
    load: Op | None = None
    for op in block.ops:
        if op.name == "qemu_ld":
            load = op
        elif op.name == "qemu_st":
            if load is not None and op.ins[0] == load.ins[0] and op.attrs["memop"].size == load.attrs["memop"].size:
                pairs[load], pairs[op] = op, load
            load = None
        elif _touches_memory(op) or op.name in ("label", "br", "brcond", "insn_start"):
            load = None
    return pairs


def emit_block(module: ModuleText, name: str, block: Block, *, opaque: bool = False, realign: bool = False) -> Emitter:
    """Append `block` to `module` as function st_<name> in a section of its own.

    realign: it uses the stack, so calls must find it realigned to 16 (a stencil that does not leaves it as it was).
    """
    emitter = Emitter(module, opaque=opaque)
    emitter.ops = block.ops
    emitter.modify = _modified_places(block)
    accesses = [op for op in block.ops if _touches_memory(op) and op.name not in ("call", "mb")]
    emitter.volatile = len(accesses) > 1
    for op in block.ops:
        if not emitter.open and op.name != "label":
            emitter.start(emitter.new_label("dead"))
        LOWER[op.name](emitter, op)
        if any(isinstance(v, Hole) or v in emitter.holed for v in op.ins) and op.name != "qemu_ld":
            emitter.holed.update(op.outs)
    symbol = SYMBOL_PREFIX + name
    module.add_function(
        f"define preserve_nonecc void @{symbol}(ptr noalias align 64 %env) nounwind"
        f'{" alignstack(16)" if realign else ""} section ".text.{symbol}" {{\n{emitter.finish()}\n}}'
    )
    return emitter


def attr(op: Op, name: str) -> Any:
    return op.attrs[name]
