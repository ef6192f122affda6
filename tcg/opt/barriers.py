"""Barrier merging: consecutive barriers become the strongest, barriers beside a full-barrier atomic vanish.

Two barriers are consecutive when no op between them touches memory, leaves the straight line or has other side effects.
"""

from tcg.ir.block import Block, Op
from tcg.ir.types import Barrier, Effect

_SEPARATES = Effect.READS_MEM | Effect.WRITES_MEM | Effect.ENDS_BLOCK | Effect.CONTROL | Effect.SIDE | Effect.ORDERS


def merge_barriers(block: Block) -> Block:
    """A block with no barrier that another one, or an atomic, next to it makes superfluous."""
    if not any(op.row.name == "mb" for op in block.ops):
        return block
    kept: list[Op] = []
    last = -1  # index in `kept` of the barrier nothing has followed yet, or -1
    after_atomic = False
    for op in block.ops:
        if op.row.name == "mb":
            barrier: Barrier = op.attrs["barrier"]
            if after_atomic or not barrier:
                continue
            if last >= 0:
                barrier |= kept[last].attrs["barrier"]
                kept[last] = Op(op.row, (), (), {"barrier": barrier})
                continue
            last = len(kept)
        elif op.row.name.startswith("atomic_"):
            if last >= 0:
                del kept[last]
            last, after_atomic = -1, True
        elif op.effects & _SEPARATES and op.row.name != "insn_start":
            last, after_atomic = -1, False
        kept.append(op)
    return Block(kept, block.next_temp, block.next_label)
