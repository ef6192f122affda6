"""What each op of the table still lacks: a meaning in the interpreter, a text form, a lowering, a random generator."""

import importlib
import importlib.util
import random

import pytest
from irgen import random_block

from tcg.ir.attributes import ATTRIBUTES
from tcg.ir.interp import MEANINGS
from tcg.ir.ops import OPS
from tcg.ir.text import parse, show
from tcg.ir.types import Effect


def test_every_op_has_a_meaning() -> None:
    assert sorted(set(OPS) - MEANINGS) == []
    assert sorted(MEANINGS - set(OPS)) == []


def test_every_attribute_has_a_text_form() -> None:
    used = {name for row in OPS.values() for name in row.attrs}
    assert sorted(used - set(ATTRIBUTES)) == []
    assert sorted(set(ATTRIBUTES) - used) == []


def test_every_op_has_a_lowering() -> None:
    if importlib.util.find_spec("backends.llvm.lower") is None:
        pytest.skip("backends.llvm.lower does not exist yet")
    lower = importlib.import_module("backends.llvm.lower")
    assert sorted(set(OPS) - set(lower.LOWER)) == []
    assert sorted(set(lower.LOWER) - set(OPS)) == []


def test_every_op_is_generated_and_survives_its_text() -> None:
    """The random blocks, by which all else is tested, contain every op."""
    rng = random.Random(0)
    seen: set[str] = set()
    for _ in range(400):
        block = random_block(rng, 40).block
        assert show(parse(show(block))) == show(block)
        seen.update(op.name for op in block.ops)
    assert sorted(set(OPS) - seen) == []


def test_effects_are_consistent() -> None:
    for row in OPS.values():
        if row.effects & (Effect.READS_MEM | Effect.WRITES_MEM):
            assert row.effects & Effect.MAY_FAULT, row.name
        if row.effects & Effect.ENDS_BLOCK:
            assert row.outs == 0, row.name
        assert row.doc, row.name
