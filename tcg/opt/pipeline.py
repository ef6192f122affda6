"""The optimizer: the ordered passes of a block, and why in this order.

1. forward   folds, simplifies and forwards; leaves dead ops and unreachable code behind.
2. control   drops what the folded branches no longer reach, so that step 4 does not count its uses.
3. barriers  merges barriers that have come next to each other.
4. liveness  drops ops and stores that nobody sees, last, because every pass before leaves some.

Total: a verified block in, a verified block of the same meaning out, judged by `tcg.ir.interp`. The input stays.
"""

from tcg.ir.block import Block
from tcg.opt.barriers import merge_barriers
from tcg.opt.control import tidy_control
from tcg.opt.forward import Forward
from tcg.opt.liveness import drop_dead


def optimize(block: Block) -> Block:
    return drop_dead(merge_barriers(tidy_control(Forward(block).block)))
