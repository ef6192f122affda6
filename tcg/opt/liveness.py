"""The backward walk: drops ops whose outputs nobody uses and stores to guest state that nobody can see.

An op that may fault, read guest state or leave the block needs guest state precise: the stores before it stay. Branches
and labels count as reading everything.
"""

from tcg.ir.block import Block, Op, Temp
from tcg.ir.types import Effect
from tcg.opt.env import Overwritten, place_of, place_of_indexed

_KEEPS = Effect.WRITES_ENV | Effect.WRITES_MEM | Effect.MAY_FAULT | Effect.ENDS_BLOCK | Effect.FP
_KEEPS |= Effect.ORDERS | Effect.CONTROL | Effect.SIDE
_SEES_ENV = Effect.MAY_FAULT | Effect.ENDS_BLOCK | Effect.CONTROL


def drop_dead(block: Block) -> Block:
    """A block without dead ops and dead stores."""
    used: set[Temp] = set()
    overwritten = Overwritten()
    kept: list[Op] = []
    for op in reversed(block.ops):
        effects = op.effects
        if not effects & _KEEPS and not any(temp in used for temp in op.outs):
            continue
        name = op.row.name
        if name == "st":
            if overwritten.written(place_of(op.attrs["ref"], op.ins[0].type.size)):
                continue
        elif name == "ld":
            overwritten.read(place_of(op.attrs["ref"], op.outs[0].type.size))
        elif name == "ldx":
            overwritten.read(place_of_indexed(op.attrs["ref"], op.attrs["span"]))
        elif effects & _SEES_ENV or (effects & Effect.READS_ENV):
            overwritten.forget()
        for operand in op.ins:
            if type(operand) is Temp:
                used.add(operand)
        kept.append(op)
    kept.reverse()
    return Block(kept, block.next_temp, block.next_label)
