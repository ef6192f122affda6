"""Unreachable ops, branches to the next op and labels that nobody names."""

from tcg.ir.block import Block, Label, Op
from tcg.ir.types import Effect


def _reached(ops: list[Op]) -> list[bool]:
    """Per op: whether control can come to it from the first one."""
    places = {op.attrs["label"]: i for i, op in enumerate(ops) if op.row.name == "label"}
    reached = [False] * len(ops)
    starts = [0]
    while starts:
        at = starts.pop()
        while at < len(ops) and not reached[at]:
            reached[at] = True
            op = ops[at]
            name = op.row.name
            if name in ("br", "brcond"):
                starts.append(places[op.attrs["label"]])
            if name == "br" or op.row.effects & Effect.ENDS_BLOCK:
                break
            at += 1
    return reached


def _leads_to_next(ops: list[Op], at: int) -> bool:
    """Whether only labels stand between the branch ops[at] and its target."""
    target: Label = ops[at].attrs["label"]
    for op in ops[at + 1 :]:
        if op.row.name != "label":
            return False
        if op.attrs["label"] is target:
            return True
    return False


def tidy_control(block: Block) -> Block:
    """A block without the three; the same block when it is a straight line."""
    ops = block.ops
    if not any(op.row.effects & (Effect.CONTROL | Effect.ENDS_BLOCK) and op is not ops[-1] for op in ops):
        return block
    ops = [op for op, reached in zip(ops, _reached(ops), strict=True) if reached]
    ops = [op for i, op in enumerate(ops) if not (op.row.name in ("br", "brcond") and _leads_to_next(ops, i))]
    named = {op.attrs["label"] for op in ops if op.row.name in ("br", "brcond")}
    ops = [op for op in ops if op.row.name != "label" or op.attrs["label"] in named]
    return Block(ops, block.next_temp, block.next_label)
