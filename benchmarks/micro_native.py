"""Loops around single run-time functions: called once from Python, they measure the function and not the call."""

from tcg.runtime.layout import BLOCK
from tcg.runtime.memory import exported, ld32, ld64
from tcg.runtime.qht import qht_find

_GPA = BLOCK.offset("gpa")
_PC = BLOCK.offset("pc")
_MODE = BLOCK.offset("mode")
_SIZE = BLOCK.size


@exported
def micro_qht_find(machine: int, blocks: int, count: int) -> int:
    """Look `count` records up by their keys, in order; how many were found."""
    found = 0
    for n in range(count):
        block = blocks + n * _SIZE
        if qht_find(machine, ld64(block + _GPA), ld64(block + _PC), ld32(block + _MODE)) == block:
            found += 1
    return found
