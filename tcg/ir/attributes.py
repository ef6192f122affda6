"""Op attributes, one row each: how a value is checked, printed and parsed. The text form and verifier read these."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tcg.ir.block import EnvRef, HelperDecl, Hole, Label
from tcg.ir.types import TYPE_OF_LABEL, Barrier, Cond, Effect, FCond, Lane, MemOp, Rounding, Type


class AttributeSyntax(ValueError):
    """The text is no value of this attribute."""


@dataclass(frozen=True, slots=True)
class Attribute:
    valid: Callable[[Any], bool]
    show: Callable[[Any], str]
    parse: Callable[[str], Any]

    def text(self, value: Any) -> str:
        """`show`, or Python's view of a value that is none, so that a broken block can still be printed."""
        return self.show(value) if self.valid(value) else repr(value)


def _int_attribute(low: int, high: int) -> Attribute:
    return Attribute(lambda v: isinstance(v, int) and low <= v <= high, lambda v: str(int(v)), lambda t: int(t, 0))


def _enum_attribute(kind: type[Enum], *, optional: bool = False) -> Attribute:
    """An Enum member by its lower-case name."""
    names = {member.name.lower(): member for member in kind}

    def valid(value: Any) -> bool:
        return isinstance(value, kind) or (optional and value is None)

    def parse(text: str) -> Enum | None:
        if optional and text == "-":
            return None
        if text not in names:
            raise AttributeSyntax(f"{text!r} is no {kind.__name__}")
        return names[text]

    return Attribute(valid, lambda v: "-" if v is None else v.name.lower(), parse)


_WORDS = {"true": True, "false": False, "-": None}


def _parse_bool(text: str) -> bool | None:
    if text not in _WORDS:
        raise AttributeSyntax(f"{text!r} is neither true, false nor -")
    return _WORDS[text]


def _bool_attribute(*, optional: bool) -> Attribute:
    return Attribute(
        lambda v: isinstance(v, bool) or (optional and v is None),
        lambda v: "-" if v is None else str(v).lower(),
        _parse_bool,
    )


def _show_flags(value: Barrier | Effect) -> str:
    return "|".join(member.name or "" for member in type(value) if member in value and member.value) or "0"


def _parse_flags(kind: type[Barrier] | type[Effect], text: str) -> Any:
    value = kind(0)
    for word in text.split("|"):
        if word != "0":
            if word not in kind.__members__:
                raise AttributeSyntax(f"{word!r} is no {kind.__name__}")
            value |= kind[word]
    return value


_MEMOP = re.compile(r"([su])(8|16|32|64|128)(le|be)(?:\.a(\d+))?(\.na)?")


def _parse_memop(text: str) -> MemOp:
    match = _MEMOP.fullmatch(text)
    if match is None:
        raise AttributeSyntax(f"{text!r} is no memory operation")
    sign, bits, order, align, not_atomic = match.groups()
    return MemOp(int(bits) // 8, sign == "s", order == "be", int(align or 1), not not_atomic)


def _valid_memop(value: Any) -> bool:
    return isinstance(value, MemOp) and value.size in (1, 2, 4, 8, 16) and value.align & (value.align - 1) == 0


_WIDE = Hole("wide", Type.I64)


def show_hole(hole: Hole) -> str:
    """$name:type, with {lo,hi} when the bounds are not the widest."""
    bounds = "" if (hole.lo, hole.hi) == (_WIDE.lo, _WIDE.hi) else f"{{{hole.lo},{hole.hi}}}"
    return f"${hole.name}:{hole.type}{bounds}"


_HOLE = re.compile(r"\$(\w+):(\w+)(?:\{(-?\d+),(-?\d+)\})?")


def parse_hole(text: str) -> Hole:
    match = _HOLE.fullmatch(text)
    if match is None or match[2] not in TYPE_OF_LABEL:
        raise AttributeSyntax(f"{text!r} is no hole")
    name, type_, low, high = match.groups()
    return Hole(name, TYPE_OF_LABEL[type_], *((int(low), int(high)) if low else ()))


def show_ref(ref: EnvRef) -> str:
    """[0x400], [0x400+$r0:i64{0,65535}], with @first..end when a span is known."""
    hole = "" if ref.hole is None else "+" + show_hole(ref.hole)
    span = "" if ref.span == (0, 0) else f"@{ref.span[0]:#x}..{ref.span[1]:#x}"
    return f"[{ref.offset:#x}{hole}{span}]"


_REF = re.compile(r"\[(-?\w+)(?:\+(\$[^@]*))?(?:@(\w+)\.\.(\w+))?\]")


def parse_ref(text: str) -> EnvRef:
    match = _REF.fullmatch(text)
    if match is None:
        raise AttributeSyntax(f"{text!r} is no place in env")
    offset, hole, first, end = match.groups()
    span = (int(first, 0), int(end, 0)) if first else (0, 0)
    return EnvRef(int(offset, 0), parse_hole(hole) if hole else None, span)


def _valid_ref(value: Any) -> bool:
    return isinstance(value, EnvRef) and value.span[0] <= value.span[1]


def _show_helper(helper: HelperDecl) -> str:
    args = ",".join(t.label for t in helper.args)
    return f"{helper.name}({args})->{helper.ret.label if helper.ret else '-'}!{_show_flags(helper.effects)}"


_HELPER = re.compile(r"(\w+)\(([\w,]*)\)->(\w+|-)!([\w|]+)")


def _parse_helper(text: str) -> HelperDecl:
    match = _HELPER.fullmatch(text)
    if match is None:
        raise AttributeSyntax(f"{text!r} declares no helper")
    name, args, ret, effects = match.groups()
    types = tuple(TYPE_OF_LABEL[label] for label in args.split(",") if label)
    return HelperDecl(name, types, None if ret == "-" else TYPE_OF_LABEL[ret], _parse_flags(Effect, effects))


def _valid_mask(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 16 and all(0 <= i <= 32 for i in value)


def _parse_label(text: str) -> Label:
    raise AttributeSyntax("labels are parsed with the block")


ATTRIBUTES: dict[str, Attribute] = {
    "cond": _enum_attribute(Cond),
    "fcond": _enum_attribute(FCond),
    "lane": _enum_attribute(Lane, optional=True),
    "to": _enum_attribute(Lane),
    "round": _enum_attribute(Rounding),
    "exact": _bool_attribute(optional=False),
    "signal": _bool_attribute(optional=False),
    "likely": _bool_attribute(optional=True),
    "nan": Attribute(lambda v: v in ("x86", "arm"), str, str),
    "index": _int_attribute(0, 15),
    "mask": Attribute(
        _valid_mask, lambda v: ",".join(map(str, v)), lambda t: tuple(int(word, 0) for word in t.split(","))
    ),
    "ref": Attribute(_valid_ref, show_ref, parse_ref),
    "span": _int_attribute(1, 1 << 16),
    "memop": Attribute(_valid_memop, str, _parse_memop),
    "barrier": Attribute(lambda v: isinstance(v, Barrier), _show_flags, lambda t: _parse_flags(Barrier, t)),
    "helper": Attribute(lambda v: isinstance(v, HelperDecl), _show_helper, _parse_helper),
    "label": Attribute(lambda v: isinstance(v, Label), lambda v: f"L{v.id}", _parse_label),
    "slot": _int_attribute(0, 1),
    "reason": _int_attribute(0, 1 << 31),
    "vector": _int_attribute(0, 1 << 31),
}
