"""The verifier: every rule a block must keep. A frontend's or pass's output that breaks one is a bug of ours.

Checked: numbers and types of inputs and outputs by the row's rule, presence and kind of attributes, one assignment a
temp, assignment above and on every path before use (local labels and loops included), labels defined once and all
targets there, nothing but a label after an op that does not fall through.
"""

from collections.abc import Callable

from tcg.ir.attributes import ATTRIBUTES
from tcg.ir.block import Block, HelperDecl, Hole, Label, Op, Temp
from tcg.ir.ops import OPS, Rule
from tcg.ir.text import show_op
from tcg.ir.types import F80, I1, I32, I64, I128, INT_OF_SIZE, V128, Effect, Lane, MemOp, Type


class VerifyError(Exception):
    """The block is not valid IR; the message has one line a problem."""


def _widens(op: Op) -> bool:
    source, to = op.ins[0].type, op.outs[0].type
    return source.kind == to.kind == "int" and source.width < to.width


def _narrows(op: Op) -> bool:
    source, to = op.ins[0].type, op.outs[0].type
    return source.kind == to.kind == "int" and source.width > to.width


def _recasts(op: Op) -> bool:
    source, to = op.ins[0].type, op.outs[0].type
    return source in op.row.types and to in op.row.types and source.width == to.width


_CONVERSIONS: dict[str, Callable[[Op], bool]] = {
    "zext": _widens,
    "sext": _widens,
    "trunc": _narrows,
    "bitcast": _recasts,
    "f2f": lambda op: op.ins[0].type.kind == op.outs[0].type.kind == "float" and op.ins[0].type is not op.outs[0].type,
    "i2f": lambda op: op.ins[0].type in (I32, I64) and op.outs[0].type in op.row.types,
    "f2i": lambda op: op.ins[0].type.kind == "float" and op.outs[0].type in op.row.types,
}


def _value_fits(value: Type, memop: MemOp, *, extends: bool) -> bool:
    """An integer as wide as the access or wider; a float or vector exactly as wide."""
    if value is I1 or value is F80:
        return False
    return value.size >= memop.size if value.kind == "int" and extends else value.size == memop.size


def _types(op: Op) -> tuple[tuple[Type, ...], tuple[Type, ...]]:
    return tuple(o.type for o in op.ins), tuple(t.type for t in op.outs)


def _call(op: Op) -> bool:
    helper: HelperDecl = op.attrs["helper"]
    return _types(op) == (helper.args, () if helper.ret is None else (helper.ret,))


def _lane_int(lane: Lane) -> Type:
    return INT_OF_SIZE[lane.width // 8]


def _atomic(op: Op) -> bool:
    memop: MemOp = op.attrs["memop"]
    value = op.outs[0].type
    return (
        op.ins[0].type is I64
        and all(o.type is value for o in op.ins[1:])
        and value.kind == "int"
        and value.width == memop.size * 8
        and (value is not I128 or op.name == "atomic_cmpxchg")
    )


_VECTOR_BY_COUNT = {"vshl", "vshr", "vsar"}

_CUSTOM: dict[str, Callable[[Op], bool]] = {
    "divu2": lambda op: _types(op) == ((I64,) * 3, (I64,) * 2),
    "divs2": lambda op: _types(op) == ((I64,) * 3, (I64,) * 2),
    **{name: lambda op: _types(op) == ((V128, I64), (V128,)) for name in _VECTOR_BY_COUNT},
    "vshuf": lambda op: _types(op) == ((V128, V128), (V128,)),
    "vtbl": lambda op: _types(op) == ((V128, V128), (V128,)),
    "vdup": lambda op: _types(op) == ((_lane_int(op.attrs["lane"]),), (V128,)),
    "vext": lambda op: (
        _types(op) == ((V128,), (_lane_int(op.attrs["lane"]),)) and op.attrs["index"] < op.attrs["lane"].count
    ),
    "vins": lambda op: (
        _types(op) == ((V128, _lane_int(op.attrs["lane"])), (V128,)) and op.attrs["index"] < op.attrs["lane"].count
    ),
    "vwidens": lambda op: _types(op) == ((V128,), (V128,)) and op.attrs["lane"].width < op.attrs["to"].width,
    "vwidenu": lambda op: _types(op) == ((V128,), (V128,)) and op.attrs["lane"].width < op.attrs["to"].width,
    "vmovmsk": lambda op: _types(op) == ((V128,), (I32,)),
    "fcmp": lambda op: op.ins[0].type in op.row.types and op.ins[1].type is op.ins[0].type and op.outs[0].type is I1,
    "vfcmp": lambda op: _types(op) == ((V128, V128), (V128,)) and op.attrs["lane"].is_float,
    "ld": lambda op: op.outs[0].type is not I1,
    "st": lambda op: op.ins[0].type is not I1,
    "ldx": lambda op: op.ins[0].type is I64 and op.outs[0].type is not I1 and op.outs[0].type.size <= op.attrs["span"],
    "stx": lambda op: op.ins[0].type is I64 and op.ins[1].type is not I1 and op.ins[1].type.size <= op.attrs["span"],
    "qemu_ld": lambda op: op.ins[0].type is I64 and _value_fits(op.outs[0].type, op.attrs["memop"], extends=True),
    "qemu_st": lambda op: op.ins[0].type is I64 and _value_fits(op.ins[1].type, op.attrs["memop"], extends=True),
    **{name: _atomic for name in OPS if name.startswith("atomic_")},
    "mb": lambda op: True,
    "call": _call,
    "label": lambda op: True,
    "br": lambda op: True,
    "brcond": lambda op: op.ins[0].type is I1,
    **{name: lambda op: op.ins[0].type is I64 for name in ("insn_start", "goto_tb", "goto_ptr", "exit", "raise")},
}

_FLOAT_LANES = (Lane.S, Lane.DF)


def _types_ok(op: Op) -> bool:
    """Whether the operand types follow the row's rule. Numbers and attributes have been checked."""
    row = op.row
    if row.rule is Rule.CUSTOM:
        return _CUSTOM[row.name](op)
    if row.rule is Rule.CONVERT:
        return _CONVERSIONS[row.name](op)
    out = op.outs[0].type
    if row.rule is Rule.SELECT:
        return op.ins[0].type is I1 and op.ins[1].type is out and op.ins[2].type is out and out in row.types
    first = op.ins[0].type
    if row.rule is Rule.COMPARE:
        return first in row.types and op.ins[1].type is first and out is I1
    return out in row.types and all(o.type is out for o in op.ins) and _lane_ok(op, out)


def _lane_ok(op: Op, type_: Type) -> bool:
    """A vector op names its lanes, a float one S or DF; a scalar float needs none."""
    if "lane" not in op.row.attrs:
        return True
    lane = op.attrs["lane"]
    if type_ is not V128:
        return lane is None
    return lane in _FLOAT_LANES if op.row.effects & Effect.FP else lane is not None


def _op_problem(op: Op) -> str | None:
    row = op.row
    if OPS.get(row.name) is not row:
        return "the row is not in the op table"
    if set(op.attrs) != set(row.attrs):
        return f"attributes {sorted(op.attrs)} instead of {sorted(row.attrs)}"
    for name, value in op.attrs.items():
        if not ATTRIBUTES[name].valid(value) or (value is None and row.rule is Rule.CUSTOM and name == "lane"):
            return f"attribute {name} is {value!r}"
    if row.ins not in (-1, len(op.ins)) or row.outs not in (-1, len(op.outs)):
        return f"{len(op.ins)} inputs and {len(op.outs)} outputs instead of {row.ins} and {row.outs}"
    return None if _types_ok(op) else "operand types do not fit"


def falls_through(op: Op) -> bool:
    return op.name != "br" and not op.row.effects & Effect.ENDS_BLOCK


def _label_problems(block: Block) -> tuple[list[str], dict[Label, int]]:
    problems, places = [], {}
    for i, op in enumerate(block.ops):
        if op.name == "label":
            if op.attrs["label"] in places:
                problems.append(f"op {i}: label L{op.attrs['label'].id} is defined twice")
            places[op.attrs["label"]] = i
    for i, op in enumerate(block.ops):
        if op.name in ("br", "brcond") and op.attrs["label"] not in places:
            problems.append(f"op {i}: label L{op.attrs['label'].id} is nowhere")
        if i and not falls_through(block.ops[i - 1]) and op.name != "label":
            problems.append(f"op {i}: {show_op(op)}: control cannot come here")
    return problems, places


def _assignment_problems(block: Block, places: dict[Label, int]) -> list[str]:
    """Temps not assigned on every path to a use.

    Forward data flow of "assigned on all paths"; a label's set is the intersection over its predecessors, repeated
    until it stands still (one round unless there are backward branches). Unreached code has every temp.
    """
    at_label: dict[int, set[Temp] | None] = dict.fromkeys(places.values())
    problems: list[str] = []

    def meet(place: int, assigned: set[Temp]) -> bool:
        before = at_label[place]
        at_label[place] = set(assigned) if before is None else before & assigned
        return at_label[place] != before

    changed = True
    while changed:
        changed = False
        problems.clear()
        assigned: set[Temp] | None = set()
        for i, op in enumerate(block.ops):
            if op.name == "label":
                if assigned is not None:
                    changed |= meet(i, assigned)
                known = at_label[i]
                assigned = None if known is None else set(known)
            if assigned is None:
                continue
            problems += [
                f"op {i}: {show_op(op)}: %{x.id} is not assigned on every path here"
                for x in op.ins
                if isinstance(x, Temp) and x not in assigned
            ]
            assigned.update(op.outs)
            if op.name in ("br", "brcond"):
                changed |= meet(places[op.attrs["label"]], assigned)
            if not falls_through(op):
                assigned = None
    return problems


def problems(block: Block) -> list[str]:
    """Every broken rule, one line each; empty for a valid block."""
    found: list[str] = []
    seen: set[Temp] = set()
    ids: set[int] = set()
    for i, op in enumerate(block.ops):
        problem = _op_problem(op)
        if problem is not None:
            found.append(f"op {i}: {show_op(op)}: {problem}")
        found += [
            f"op {i}: {show_op(op)}: %{x.id} is not assigned above" for x in op.ins if type(x) is Temp and x not in seen
        ]
        for temp in op.outs:
            if temp in seen or temp.id in ids:
                found.append(f"op {i}: {show_op(op)}: %{temp.id} is assigned twice")
            seen.add(temp)
            ids.add(temp.id)
        if op.outs and max(temp.id for temp in op.outs) >= block.next_temp:
            found.append(f"op {i}: {show_op(op)}: the temp is not the block's")
    if found:
        return found
    found = _hole_problems(block)
    if found:
        return found
    label_problems, places = _label_problems(block)
    if label_problems:
        return label_problems
    return _assignment_problems(block, places)


def _hole_problems(block: Block) -> list[str]:
    """One name is one symbol with one range: the same bounds wherever it stands (its type may differ)."""
    found = []
    holes = block.holes()
    for i, op in enumerate(block.ops):
        ref = op.attrs.get("ref")
        used = [*op.ins, *((ref.hole,) if ref is not None and ref.hole is not None else ())]
        for hole in used:
            if isinstance(hole, Hole) and (hole.lo, hole.hi) != (holes[hole.name].lo, holes[hole.name].hi):
                found.append(f"op {i}: {show_op(op)}: hole ${hole.name} has other bounds than at its first use")
    return found


def verify(block: Block) -> None:
    """Raise VerifyError unless `block` is valid."""
    found = problems(block)
    if found:
        raise VerifyError("\n".join(found))
