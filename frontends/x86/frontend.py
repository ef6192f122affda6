"""The x86 frontend's face to the translator: decode bytes to a pattern, emit a form's IR.

Forms are made once and remembered by key; what the translator must know of a form (may it fault, does it end a block)
is read off the IR of its first emission.
"""

import importlib
import importlib.util

from frontends.x86.context import X86Insn
from frontends.x86.decode import MAX_LENGTH, Decoded, Decoder
from frontends.x86.operands import RegShape, X86Key
from frontends.x86.registry import INSTRUCTIONS, Row, Status
from frontends.x86.state import STATE, Mode
from frontends.x86.templates import Templates
from tcg.exec.forms import Form, Pattern, Truncated, Variant
from tcg.ir.block import Op
from tcg.ir.builder import Builder
from tcg.ir.types import Effect

CHAPTERS = (
    "insn_move", "insn_arith", "insn_shift", "insn_bit", "insn_control", "insn_string", "insn_system", "insn_misc",
    "insn_sse_move", "insn_sse_shuffle", "insn_sse_int", "insn_sse_fp", "insn_sse_misc", "insn_mmx", "insn_x87",
)  # fmt: skip
_UD = 6
# Opcodes that 64-bit code does not have, whatever follows (SDM volume 2, appendix A, table A-2, superscript i64); 62,
# C4 and C5 begin EVEX and VEX instructions there.
_NOT_IN_64_BIT = bytes.fromhex("06 07 0e 16 17 1e 1f 27 2f 37 3f 60 61 82 9a ce d4 d5 d6 ea")
_LEGACY_PREFIXES = bytes((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
# Where BMI1 or LZCNT is not announced, the F3 prefix is ignored (SDM volume 2, TZCNT and LZCNT).
_IGNORED_PREFIX = {"tzcnt": "bsf", "lzcnt": "bsr"}
_EXITS = frozenset(("goto_tb", "goto_ptr", "exit"))


class X86Frontend:
    """See tcg.exec.forms.Frontend."""

    name = "x86_64"
    env = STATE

    def __init__(self, features: frozenset[str] | None = None) -> None:
        """features: names announced by CPUID (None: all that is implemented)."""
        for chapter in CHAPTERS:
            if importlib.util.find_spec(f"frontends.x86.{chapter}") is not None:
                importlib.import_module(f"frontends.x86.{chapter}")
        self.decoder = Decoder()
        self.features = features
        self.undefined: dict[str, int] = {}
        self._forms: dict[X86Key, Form] = {}
        self._templates = Templates()

    def decode(self, code: bytes, pc: int, mode: int) -> Pattern:
        known = self._templates.find(code, mode)
        if known is not None:
            return known
        decoded = self.decoder.decode(code, pc, mode)
        if decoded is None:
            return self._not_decoded(code, mode)
        row = self._row(decoded.key)
        if row is None:
            self.undefined[decoded.text] = self.undefined.get(decoded.text, 0) + 1
            return self._undefined(bytes(code[: decoded.length]), mode)
        pattern = _pattern(decoded, self._form(decoded.key), mode)
        self._templates.learn(code, mode, pattern)
        return pattern

    def emit(self, form: Form, variant: Variant, builder: Builder) -> None:
        key = form.key
        assert isinstance(key, X86Key)
        x = X86Insn(key, variant, builder)
        builder.insn_start(x.pc)
        self.emit_row(x)

    def emit_row(self, x: X86Insn) -> None:
        row = self._row(x.key)
        if row is None:
            x.raise_(_UD)
        else:
            row.emit(x)
        # A form that leaves on one path and falls on along another takes chained exit 1 there, as the block ends here.
        ops = x.b.block.ops
        if any(op.name in _EXITS for op in ops) and not _ends(ops[-1]):
            x.b.goto_tb(1, x.next_pc)

    def _row(self, key: X86Key) -> Row | None:
        row = INSTRUCTIONS.get(key.name)
        if row is not None and key.name in _IGNORED_PREFIX and not self._announced(row):
            row = INSTRUCTIONS[_IGNORED_PREFIX[key.name]]
        if row is None or any(isinstance(o, RegShape) and o.bank == "none" for o in key.operands):
            return None
        return row if self._announced(row) else None

    def _announced(self, row: Row) -> bool:
        return not row.feature or self.features is None or row.feature in self.features

    def _form(self, key: X86Key) -> Form:
        form = self._forms.get(key)
        if form is None:
            builder = Builder()
            x = X86Insn(key, Variant(), builder)
            builder.insn_start(x.pc)
            self.emit_row(x)
            row = self._row(key)
            status = Status(kills=False) if row is None else row.status(x) if callable(row.status) else row.status
            ops = builder.block.ops
            form = Form(
                key,
                str(key),
                reads_status=status.reads,
                kills_status=status.kills,
                status_out=status.out,
                ends_block=any(op.name in _EXITS for op in ops) or _ends(ops[-1]),
                may_fault=any(op.effects & Effect.MAY_FAULT or op.name in ("raise", "exit") for op in ops),
            )
            self._forms[key] = form
        return form

    def _not_decoded(self, code: bytes, mode: int) -> Pattern:
        """capstone knows nothing that begins so: an undefined instruction, unless more bytes could complete it.

        Heads stay prefix-free: where the opcode alone decides, it ends the head wherever the page ends.
        """
        at = len(code) - len(code.lstrip(_LEGACY_PREFIXES))
        if mode & Mode.CODE64 and code[at : at + 1] and code[at] & 0xF0 == 0x40:  # REX
            at += 1
        if mode & Mode.CODE64 and at < min(len(code), MAX_LENGTH) and code[at] in _NOT_IN_64_BIT:
            head = bytes(code[: at + 1])
        elif len(code) < MAX_LENGTH:
            raise Truncated
        else:
            head = bytes(code[:MAX_LENGTH])
        self.undefined[head.hex()] = self.undefined.get(head.hex(), 0) + 1
        return self._undefined(head, mode)

    def _undefined(self, head: bytes, mode: int) -> Pattern:
        key = X86Key("(undefined)", mode & (Mode.CODE64 | Mode.CODE32), False, 0, 4, 8, False, ())
        return Pattern(self._form(key), head, len(head))


def _ends(op: Op) -> bool:
    return bool(op.effects & Effect.ENDS_BLOCK)


def _pattern(decoded: Decoded, form: Form, mode: int) -> Pattern:
    key = decoded.key
    relative_imm = any(getattr(o, "relative", False) for o in key.operands)
    relative_disp = any(getattr(o, "pc_relative", False) for o in key.operands)
    return Pattern(
        form, decoded.head, decoded.length, decoded.disp, decoded.imm, decoded.imm2, decoded.regs,
        disp_pc_relative=relative_disp, imm_pc_relative=relative_imm, wrap=not mode & Mode.CODE64,
    )  # fmt: skip
