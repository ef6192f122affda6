"""The table of instruction functions: one row an instruction, found by the decoder's name for it.

`@instruction("add", status=...)` registers a function; its `Status` tells the translator how it treats the lazy flags
without emitting it. Everything else (may it fault, does it end the block) is read off the IR it emits.
"""

from collections.abc import Callable
from dataclasses import dataclass

from frontends.x86.context import X86Insn
from tcg.exec.forms import StatusOut


@dataclass(frozen=True, slots=True)
class Status:
    """reads: needs the incoming flags. kills: leaves none of the old flags. out: CcOp after it, or a StatusOut."""

    reads: bool = False
    kills: bool = False
    out: int = StatusOut.KEEP


NO_STATUS = Status()
StatusRule = Status | Callable[[X86Insn], Status]


@dataclass(frozen=True, slots=True)
class Row:
    """emit: writes the IR. status: constant, or computed from the form (operand size, shift count).

    feature: the name of the CPUID feature that announces it ("" baseline): absent, the instruction is undefined.
    """

    name: str
    emit: Callable[[X86Insn], None]
    status: StatusRule
    feature: str


INSTRUCTIONS: dict[str, Row] = {}


def instruction(
    *names: str, status: StatusRule = NO_STATUS, feature: str = ""
) -> Callable[[Callable[[X86Insn], None]], Callable[[X86Insn], None]]:
    """Register a function under the decoder's names (capstone's, but movs, cmps, stos, lods, scas, ins, outs)."""

    def register(function: Callable[[X86Insn], None]) -> Callable[[X86Insn], None]:
        for name in names:
            assert name not in INSTRUCTIONS, f"{name} registered twice"
            INSTRUCTIONS[name] = Row(name, function, status, feature)
        return function

    return register
