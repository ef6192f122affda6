"""A whole guest block as one piece of IR, with every operand concrete: the input of a hot block's stencil.

The same instruction functions that make stencils with holes run here with constants, one after the other, so that the
optimizer and LLVM see across instructions. A block that branches back to its own start becomes a loop: `exit_request`
is tested at each turn, as the block head does.
"""

from collections.abc import Sequence

from frontends.x86.context import X86Insn
from frontends.x86.frontend import X86Frontend
from frontends.x86.operands import X86Key
from tcg.exec.forms import HoleSlot, Pattern, StatusOut, Variant
from tcg.ir.block import Block, Const, EnvRef, Label, Op
from tcg.ir.builder import Builder
from tcg.ir.types import I32, I64, Cond
from tcg.runtime.layout import ENV, ExitReason

_M64 = (1 << 64) - 1


def decode_block(frontend: X86Frontend, code: bytes, pc: int, mode: int, count: int) -> list[tuple[int, Pattern]]:
    """(pc, pattern) of the `count` instructions at the start of `code`."""
    found: list[tuple[int, Pattern]] = []
    at = 0
    for _ in range(count):
        pattern = frontend.decode(code[at:], pc + at, mode)
        found.append((pc + at, pattern))
        at += pattern.length
    return found


def concrete(pattern: Pattern, code: bytes, pc: int) -> dict[HoleSlot, int]:
    """The hole values of one instruction at `pc` whose bytes begin `code` (as the native assembler works them out)."""

    def field(place: tuple[int, int]) -> int:
        offset, size = place
        return int.from_bytes(code[offset : offset + size], "little", signed=True)

    wrap = 0xFFFFFFFF if pattern.wrap else _M64
    following = pc + pattern.length & wrap
    target = following + field(pattern.imm) & wrap
    disp = field(pattern.disp)
    if pattern.disp_pc_relative:
        disp = following + disp & wrap
    imm = target if pattern.imm_pc_relative else field(pattern.imm)
    values = {
        HoleSlot.PC: pc,
        HoleSlot.NEXT_PC: following,
        HoleSlot.TARGET: target,
        HoleSlot.IMM: imm & _M64,
        HoleSlot.DISP: disp & _M64,
        HoleSlot.IMM2: field(pattern.imm2) & _M64,
    }
    for n, reg in enumerate(pattern.regs):
        values[HoleSlot(HoleSlot.R0 + n)] = reg
    return values


def variants(patterns: Sequence[Pattern]) -> list[Variant]:
    """Status tracking over the block, as the native assembler does it."""
    status, incoming = 0, []
    for pattern in patterns:
        incoming.append(status)
        if pattern.form.status_out != StatusOut.KEEP:
            status = max(pattern.form.status_out, 0)
    live, result = True, []
    for pattern, status_in in zip(reversed(patterns), reversed(incoming), strict=True):
        form = pattern.form
        result.append(Variant(live, status_in))
        if form.kills_status:
            live = False
        live = live or form.reads_status or form.may_fault or form.ends_block
    return result[::-1]


def emit_block(frontend: X86Frontend, code: bytes, pc: int, mode: int, count: int) -> Block:
    """The IR of the `count` instructions at `pc`; falls off its end if the last one does."""
    insns = decode_block(frontend, code, pc, mode, count)
    builder = Builder()
    start = builder.new_label()
    leave = builder.new_label()
    for (at, pattern), variant in zip(insns, variants([p for _, p in insns]), strict=True):
        key = pattern.form.key
        assert isinstance(key, X86Key)
        x = X86Insn(key, variant, builder, concrete(pattern, code[at - pc :], at))
        builder.insn_start(x.pc)
        frontend.emit_row(x)
    return _loop(builder, pc, start, leave)


def _loop(builder: Builder, pc: int, start: Label, leave: Label) -> Block:
    """Turn exits to the block's own start into local branches, if there are any."""
    block = builder.block
    if not any(_goes_to(op, pc) for op in block.ops):
        return block
    body = block.ops
    block.ops = []
    builder.insn_start(pc)
    builder.label(start)
    request = builder.ld(I32, EnvRef(ENV.offset("exit_request")))
    builder.brcond(builder.setcond(Cond.NE, request, 0), leave, likely=False)
    for op in body:
        if _goes_to(op, pc):
            builder.br(start)
        else:
            block.ops.append(op)
    builder.label(leave)
    builder.exit(ExitReason.INTERRUPT, pc)
    return block


def _goes_to(op: Op, pc: int) -> bool:
    if op.name != "goto_tb":
        return False
    to = op.ins[0]
    return isinstance(to, Const) and to == Const(I64, pc)
