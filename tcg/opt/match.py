"""Compiles the rules to closures: `REWRITES[op name]` is what the forward walk tries on an op of that name.

A matcher fills a binding (letter -> operand) by looking at operands and the ops that define them; a maker builds the
right side through the walk's `emit`, which folds and simplifies as it goes.
"""

from collections.abc import Callable
from typing import Protocol

from tcg.ir.block import Const, Op, Operand, Temp
from tcg.ir.types import I1, Cond, Type
from tcg.opt.rules import LITERALS, RULES, VARIABLES, Node, Rule, Tree, commuted

Binding = dict[str, Operand]
Definitions = dict[Temp, Op]
Matcher = Callable[[Operand, Definitions, Binding], bool]


class Emitter(Protocol):
    """The forward walk, as a maker sees it."""

    def emit(self, name: str, type_: Type, ins: tuple[Operand, ...], cond: Cond | None = None) -> Operand: ...


Maker = Callable[[Emitter, Binding, Type, Type], Operand]
Rewrite = Callable[[Emitter, Op, Definitions], Operand | None]


def _leaf_matcher(leaf: str) -> Matcher:
    if leaf in LITERALS:
        literal = LITERALS[leaf]
        return lambda operand, definitions, binding: (
            type(operand) is Const and operand.value == literal(operand.type.width)
        )
    any_operand = leaf in VARIABLES

    def matcher(operand: Operand, definitions: Definitions, binding: Binding) -> bool:
        if not any_operand and type(operand) is not Const:
            return False
        bound = binding.setdefault(leaf, operand)
        return bound is operand or bound == operand

    return matcher


def _matcher(node: Node) -> Matcher:
    if isinstance(node, str):
        return _leaf_matcher(node)
    name, cond = node.op, Cond(node.cond) if node.cond else None
    children = tuple(_matcher(child) for child in node.children)

    def matcher(operand: Operand, definitions: Definitions, binding: Binding) -> bool:
        op = definitions.get(operand) if type(operand) is Temp else None
        if op is None or op.row.name != name or (cond is not None and op.attrs["cond"] is not cond):
            return False
        return all(child(value, definitions, binding) for child, value in zip(children, op.ins, strict=True))

    return matcher


def _maker(node: Node) -> Maker:
    """maker(emitter, binding, type of this node, operand type): comparisons and selections mix the two."""
    if isinstance(node, str):
        if node not in LITERALS:
            return lambda emitter, binding, type_, inner: binding[node]
        literal = LITERALS[node]
        return lambda emitter, binding, type_, inner: Const(type_, literal(type_.width))
    name, cond = node.op, Cond(node.cond) if node.cond else None
    children = tuple(_maker(child) for child in node.children)

    def maker(emitter: Emitter, binding: Binding, type_: Type, inner: Type) -> Operand:
        each = inner if cond is not None else type_
        types = (I1, type_, type_) if name == "select" else (each,) * len(children)
        ins = tuple(child(emitter, binding, t, inner) for child, t in zip(children, types, strict=True))
        return emitter.emit(name, type_, ins, cond)

    return maker


def _quick(leaf: Node) -> Callable[[Operand], bool] | None:
    """A cheap test that an operand can match at all."""
    if isinstance(leaf, Tree):
        return lambda operand: type(operand) is Temp
    if leaf not in VARIABLES:
        return lambda operand: type(operand) is Const
    return None


def _rewrite(rule: Rule, left: Tree) -> Rewrite:
    children = tuple(_matcher(child) for child in left.children)
    cond = Cond(left.cond) if left.cond else None
    last, quick = len(children) - 1, _quick(left.children[-1])
    maker, guard = _maker(rule.right), rule.guard

    def rewrite(emitter: Emitter, op: Op, definitions: Definitions) -> Operand | None:
        ins = op.ins
        if (quick is not None and not quick(ins[last])) or (cond is not None and op.attrs["cond"] is not cond):
            return None
        binding: Binding = {}
        for child, operand in zip(children, ins, strict=True):
            if not child(operand, definitions, binding):
                return None
        inner = ins[0].type
        if guard is not None:
            constants = {letter: value.value for letter, value in binding.items() if isinstance(value, Const)}
            if not guard(constants, inner.width):
                return None
        return maker(emitter, binding, op.outs[0].type, inner)

    return rewrite


def _compile() -> dict[str, tuple[Rewrite, ...]]:
    """By op name; the table's order is kept (earlier rows win)."""
    found: dict[str, list[Rewrite]] = {}
    for rule in RULES:
        for left in commuted(rule.left):
            assert isinstance(left, Tree)
            found.setdefault(left.op, []).append(_rewrite(rule, left))
    return {name: tuple(rewrites) for name, rewrites in found.items()}


REWRITES = _compile()
