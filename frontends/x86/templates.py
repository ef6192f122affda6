"""Patterns by analogy: an encoding that differs from a decoded one in register numbers only needs no second decoding.

Of 20 000 encodings that a boot meets, eight in ten are such. An encoding's *class* is all that its form and its layout
depend on, as SDM volume 2, chapter 2 lays encodings out: mode, legacy prefixes, whether there is a REX and its W,
opcode, the shape of ModRM and SIB (addressing shape and scale; ModRM.reg where it extends the opcode), whether both
register operands are one, and an immediate byte where heads hold it (shift counts, shuffles). What is left, the
numbers in ModRM.reg, rm, SIB.base and index with their REX bits, become the pattern's register holes.

Learnt, not declared: a decoded pattern becomes its class's template when each of its register holes can be told to
come from exactly one of those fields and none is left over. Whatever does not fit (implicit registers, segment
registers, one register in two fields) is decoded in full, always. 64-bit code without VEX only.
"""

from dataclasses import dataclass
from typing import NamedTuple

from frontends.x86.operands import MemShape, RegShape, X86Key
from frontends.x86.state import STATE, XMM_STRIDE, Mode
from tcg.exec.forms import Pattern

_REGS = STATE.offset("regs")
_XMM = STATE.offset("xmm")
_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_CODE64 = int(Mode.CODE64)  # not a flag: this is asked for every new encoding
_TWO_BYTE = 0x100  # the opcodes behind 0F

# Opcodes with ModRM (SDM volume 2, appendix A), the x87 ones and those of system registers left out.
_MODRM = frozenset(
    (
        *(row + n for row in range(0x00, 0x40, 8) for n in range(4)),
        *(0x63, 0x69, 0x6B, 0x80, 0x81, 0x83, 0x8D, 0xC0, 0xC1, 0xC6, 0xC7, 0xD0, 0xD1, 0xF6, 0xF7, 0xFE, 0xFF),
        *range(0x84, 0x8C),
        *(_TWO_BYTE + n for n in range(0x10, 0x18)),
        *(_TWO_BYTE + n for n in range(0x28, 0x30)),
        *(_TWO_BYTE + n for n in range(0x40, 0x71)),
        *(_TWO_BYTE + n for n in (0x74, 0x75, 0x76, 0x7C, 0x7D, 0x7E, 0x7F)),
        *(_TWO_BYTE + n for n in range(0x90, 0xA0)),
        *(_TWO_BYTE + n for n in (0xA3, 0xA4, 0xAB, 0xAC, 0xAF, 0xB0, 0xB1, 0xB3, 0xC0, 0xC1, 0xC2, 0xC6)),
        *(_TWO_BYTE + n for n in (0xB6, 0xB7, 0xB8, 0xBA, 0xBB, 0xBC, 0xBD, 0xBE, 0xBF)),
        *(_TWO_BYTE + n for n in range(0xD0, 0xFF)),
    )
)
# ModRM.reg is part of the opcode, or (SETcc) without a meaning.
_EXTENDED = frozenset(
    (
        *(0x80, 0x81, 0x83, 0xC0, 0xC1, 0xC6, 0xC7, 0xD0, 0xD1, 0xF6, 0xF7, 0xFE, 0xFF, _TWO_BYTE + 0xBA),
        *(_TWO_BYTE + n for n in range(0x90, 0xA0)),
    )
)
_REG, _RM, _BASE, _INDEX = range(4)
_DISP_SIZE = (0, 1, 4)
_SAME = 0x1000  # in a class's shape: ModRM.reg and rm name one register

Class = tuple[int, bytes, int, int, int]


class _Fields(NamedTuple):
    """numbers: by _REG.._INDEX, -1: there is no such field; end: first byte behind ModRM, SIB and displacement."""

    class_: Class
    numbers: tuple[int, int, int, int]
    rex: int
    end: int


@dataclass(frozen=True, slots=True)
class _Template:
    """pattern: of one member; sources: for each register hole (field, first env offset, stride, has high bytes)."""

    pattern: Pattern
    sources: tuple[tuple[int, int, int, bool], ...]


def _offset(number: int, first: int, stride: int, high_bytes: bool, rex: int) -> int:
    """Where register `number` is in env; AH, CH, DH, BH are 4..7 of the byte registers without REX."""
    if high_bytes and not rex and number & 4:
        return first + stride * (number & 3) + 1
    return first + stride * number


def _fields(code: bytes, mode: int) -> _Fields | None:
    """The encoding's class and register numbers; None: not of the kind that has templates, or cut off."""
    if not mode & _CODE64:
        return None
    try:
        at = 0
        opcode = code[0]
        while opcode in _PREFIXES:
            at += 1
            opcode = code[at]
        prefixes = code[:at]
        rex = 0
        if opcode & 0xF0 == 0x40:
            rex = opcode
            at += 1
            opcode = code[at]
        if opcode == 0x0F:
            at += 1
            opcode = _TWO_BYTE + code[at]
        if opcode not in _MODRM:
            return None
        modrm = code[at + 1]
        at += 2
        mod, low = modrm & 0xC0, modrm & 7
        number = modrm >> 3 & 7
        shape = mod
        reg, rm, base, index = number | (rex & 4) << 1, -1, -1, -1
        if opcode in _EXTENDED:
            shape |= number << 8
            reg = -1
        if mod == 0xC0:
            rm = low | (rex & 1) << 3
            shape |= _SAME if reg == rm else 0
        else:
            if low == 4:
                sib = code[at]
                at += 1
                low = sib & 7
                index = sib >> 3 & 7 | (rex & 2) << 2
                if index == 4:
                    index = -1
                    shape |= 1
                else:
                    shape |= 2 | sib >> 6 << 2
            if low == 5 and mod == 0:
                shape |= 0x10
                at += 4
            else:
                base = low | (rex & 1) << 3
                at += _DISP_SIZE[mod >> 6]
    except IndexError:
        return None
    class_ = (mode, prefixes, 1 + (rex & 8) if rex else 0, opcode, shape)
    return _Fields(class_, (reg, rm, base, index), rex, at)


def _sources(key: X86Key, regs: tuple[int, ...], fields: _Fields) -> tuple[tuple[int, int, int, bool], ...] | None:
    """Which field each register hole comes from, or None if that is not certain."""
    kinds: dict[int, tuple[int, int, bool]] = {}
    for shape in key.operands:
        if isinstance(shape, RegShape) and shape.slot >= 0:
            if shape.bank == "gpr":
                kinds[shape.slot] = (_REGS, 8, shape.size == 1)
            elif shape.bank == "xmm":
                kinds[shape.slot] = (_XMM, XMM_STRIDE, False)
            else:
                return None
        elif isinstance(shape, MemShape):
            kinds.update({slot: (_REGS, 8, False) for slot in (shape.base, shape.index) if slot >= 0})
    used = [field for field, number in enumerate(fields.numbers) if number >= 0]
    if sorted(kinds) != list(range(len(regs))) or len(regs) != len(used):
        return None
    same = bool(fields.class_[4] & _SAME)  # then either field will do
    found = []
    for slot, value in enumerate(regs):
        kind = kinds[slot]
        fitting = [field for field in used if _offset(fields.numbers[field], *kind, fields.rex) == value]
        if not fitting or (len(fitting) > 1 and not same):
            return None
        found.append((fitting[0], *kind))
    return tuple(found) if same or sorted(source[0] for source in found) == used else None


class Templates:
    """Not thread-safe: the caller holds tb_lock."""

    def __init__(self) -> None:
        # By class, or by class and immediate byte where heads hold that: the class alone is then in _by_immediate.
        self._templates: dict[Class | tuple[Class, int], _Template] = {}
        self._by_immediate: set[Class] = set()

    def find(self, code: bytes, mode: int) -> Pattern | None:
        """The pattern of the encoding that begins `code`, or None: decode it in full, then `learn` it."""
        fields = _fields(code, mode)
        if fields is None:
            return None
        template = self._templates.get(fields.class_)
        if template is None:
            if fields.class_ not in self._by_immediate or fields.end >= len(code):
                return None
            template = self._templates.get((fields.class_, code[fields.end]))
            if template is None:
                return None
        like = template.pattern
        if like.length > len(code):
            return None
        numbers, rex = fields.numbers, fields.rex
        regs = tuple([_offset(numbers[field], at, step, high, rex) for field, at, step, high in template.sources])
        return Pattern(
            like.form, code[: len(like.head)], like.length, like.disp, like.imm, like.imm2, regs,
            like.disp_pc_relative, like.imm_pc_relative, like.wrap,
        )  # fmt: skip

    def learn(self, code: bytes, mode: int, pattern: Pattern) -> None:
        """Remember a decoded encoding (not an undefined one) as its class's template, if it can be one."""
        fields = _fields(code, mode)
        key = pattern.form.key
        if fields is None or not isinstance(key, X86Key):
            return
        sources = _sources(key, pattern.regs, fields)
        if sources is None:
            return
        at, size = pattern.imm
        if size and len(pattern.head) == pattern.length:
            if (at, size) == (fields.end, 1):
                self._by_immediate.add(fields.class_)
                self._templates[fields.class_, code[at]] = _Template(pattern, sources)
        elif not pattern.disp[1] or len(pattern.head) == pattern.disp[0]:
            self._templates[fields.class_] = _Template(pattern, sources)
