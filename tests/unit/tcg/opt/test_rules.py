"""Every row of the rule table, proven over all 8-bit values against the interpreter's meanings of the ops.

Both sides are evaluated by tables of 256 x 256 results that `evaluate` fills, over every combination of the letters.
"""

import functools
import random
from typing import Any

import numpy as np
import pytest

from tcg.ir.block import Block, Const, EnvRef, Op, Operand
from tcg.ir.builder import Builder
from tcg.ir.interp import FlatMemory, evaluate, run
from tcg.ir.ops import OPS
from tcg.ir.ops import Rule as TypeRule
from tcg.ir.types import I1, I8, I16, I32, I64, I128, Cond, Type
from tcg.ir.verify import verify
from tcg.opt.pipeline import optimize
from tcg.opt.rules import LITERALS, RULES, VARIABLES, Node, Rule, Tree, commuted

Array = Any
SEED = 8


@functools.cache
def table(name: str, cond: str | None, type_: Type) -> Array:
    """Results of the op on every (a, b) or every a of `type_`; all ones of 16 bits where it has no meaning."""
    row, size = OPS[name], 1 << type_.width
    attrs = {"cond": Cond(cond)} if cond else {}
    out = I1 if row.rule is TypeRule.COMPARE else type_
    op = Op(row, (Block().new_temp(out),), tuple(Const(type_, 0) for _ in range(row.ins)), attrs)
    shape = (size,) * row.ins
    results = np.full(shape, 0xFFFF, np.uint16)
    for values in np.ndindex(shape):
        result = evaluate(op, tuple(int(v) for v in values))
        if result is not None:
            results[values] = result[0]
    return results


def type_of(node: Node, letters: dict[str, Type]) -> Type | None:
    """The type of a subtree; None for a literal, which takes its sibling's."""
    if isinstance(node, str):
        return letters.get(node)
    if node.cond is not None:
        return I1
    return next((t for child in node.children[node.op == "select" :] if (t := type_of(child, letters))), None)


def value(node: Node, letters: dict[str, Type], arrays: dict[str, Array], type_: Type) -> Array:
    if isinstance(node, str):
        return arrays[node] if node in arrays else np.asarray(LITERALS[node](type_.width))
    if node.op == "select":
        condition, a, b = node.children
        picked = [value(child, letters, arrays, type_) for child in (a, b)]
        return np.where(value(condition, letters, arrays, I1) != 0, *picked)
    inner = type_
    if node.cond is not None:
        inner = next((t for child in node.children if (t := type_of(child, letters))), I8)
    ins = [value(child, letters, arrays, inner) for child in node.children]
    return table(node.op, node.cond, inner)[tuple(ins)]


def letters_of(node: Node) -> list[str]:
    if isinstance(node, str):
        return [node] if node not in LITERALS else []
    return sorted({letter for child in node.children for letter in letters_of(child)})


def depth(node: Node) -> int:
    """Ops of the right side that are left at run time: a tree of constants is folded."""
    if isinstance(node, str) or not any(letter in VARIABLES for letter in letters_of(node)):
        return 0
    return 1 + sum(depth(child) for child in node.children)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_holds_for_all_8_bit_values(rule: Rule) -> None:
    if rule.name == "bswap_bswap":
        pytest.skip("there is no 8-bit byte swap: proven below over 16 bits")
    names = letters_of(rule.left)
    assert set(letters_of(rule.right)) <= set(names)
    letters = dict.fromkeys(names, I8)
    if rule.left.op == "select" and "x" in names:
        letters["x"] = I1
    grids = np.ogrid[tuple(slice(0, 1 << letters[name].width) for name in names)]
    arrays = dict(zip(names, grids if len(names) > 1 else [np.asarray(grids).ravel()], strict=True))
    out = type_of(rule.left, letters) or I8
    for left in commuted(rule.left):
        wanted = value(left, letters, arrays, out)
        got = value(rule.right, letters, arrays, out)
        holds = np.broadcast_to(np.asarray(wanted == got), tuple(1 << letters[name].width for name in names))
        defined = np.broadcast_to(wanted != 0xFFFF, holds.shape)
        if rule.guard is not None:
            defined = defined & _guarded(rule, names, letters, holds.shape)
        assert defined.any(), "the rule never applies"
        bad = np.argwhere(defined & ~holds)
        assert not len(bad), f"{rule.algebra}: {dict(zip(names, bad[0], strict=True))}"


def _guarded(rule: Rule, names: list[str], letters: dict[str, Type], shape: tuple[int, ...]) -> Array:
    """Where the guard lets the rule apply; it sees the constants only."""
    assert rule.guard is not None
    constants = [name for name in names if name not in VARIABLES]
    small = np.zeros([1 << letters[name].width if name in constants else 1 for name in names], bool)
    for index in np.ndindex(small.shape):
        bound = {name: int(i) for name, i in zip(names, index, strict=True) if name in constants}
        small[index] = rule.guard(bound, 8)
    return np.broadcast_to(small, shape)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_never_makes_worse_code(rule: Rule) -> None:
    """It replaces the outer op, inner ones may live on: at most one op may come instead."""
    assert depth(rule.right) <= 1


def test_byte_swap_over_16_bits() -> None:
    out = Block().new_temp(I16)
    op = Op(OPS["bswap"], (out,), (Const(I16, 0),))
    for a in range(1 << 16):
        once = evaluate(op, (a,))
        assert once is not None
        assert evaluate(op, once) == (a,)


def _operand(b: Builder, node: Node, type_: Type, leaves: dict[str, Operand], letters: dict[str, Type]) -> Operand:
    if isinstance(node, str):
        return leaves[node] if node in leaves else Const(type_, LITERALS[node](type_.width))
    inner = type_
    if node.cond is not None:
        inner = next((t for child in node.children if (t := type_of(child, letters))), type_)
    types = (I1, type_, type_) if node.op == "select" else (inner,) * len(node.children)
    ins = tuple(_operand(b, child, t, leaves, letters) for child, t in zip(node.children, types, strict=True))
    return b._emit(node.op, type_, ins, **({"cond": Cond(node.cond)} if node.cond else {}))


@pytest.mark.parametrize("type_", [I8, I16, I32, I64, I128], ids=str)
def test_rules_apply_and_hold_at_every_width(type_: Type) -> None:
    """Build each left side from guest state, optimize: the meaning stays and, where there is no guard, it shrinks."""
    print("seed", SEED)
    rng = random.Random(SEED)
    for rule in RULES:
        ops = _ops(rule.left)
        if any(type_ not in OPS[op].types for op in ops if op != "select"):
            continue
        for _ in range(6):
            letters = dict.fromkeys(letters_of(rule.left), type_)
            if rule.left.op == "select" and "x" in letters:
                letters["x"] = I1
            b = Builder()
            leaves: dict[str, Operand] = {}
            for i, (name, letter_type) in enumerate(letters.items()):
                if name in VARIABLES:
                    loaded = b.ld(I8 if letter_type is I1 else letter_type, EnvRef(0x400 + 16 * i))
                    leaves[name] = b.trunc(loaded, letter_type)
                else:
                    leaves[name] = Const(letter_type, _constant(rng, type_))
            out = type_of(rule.left, letters) or type_
            result = _operand(b, rule.left, out, leaves, letters)
            b.st(EnvRef(0x600), b.zext(result, I8) if out is I1 else result)
            verify(b.block)
            better = optimize(b.block)
            verify(better)
            if rule.guard is None:
                assert len(better.ops) <= len(b.block.ops) - (len(ops) > 1), rule.name
            for _ in range(4):
                env = bytearray(rng.randbytes(0x700))
                other = bytearray(env)
                run(b.block, env, FlatMemory(bytearray()))
                run(better, other, FlatMemory(bytearray()))
                assert env == other, (rule.name, type_)


def _constant(rng: random.Random, type_: Type) -> int:
    """Never 0, so that a division by it is defined."""
    return rng.choice((1 << rng.randrange(type_.width), rng.randrange(1, 8), rng.getrandbits(type_.width) | 1))


def _ops(node: Node) -> list[str]:
    return [] if isinstance(node, str) else [node.op, *(op for child in node.children for op in _ops(child))]


def test_commuted_sides_are_all_there() -> None:
    assert len(commuted(next(rule for rule in RULES if rule.name == "and_or").left)) == 4
    assert isinstance(RULES[0].left, Tree)
