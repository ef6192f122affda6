"""PURE helpers that the host has an instruction for, expanded in line."""

from backends.llvm.emitter import Emitter
from tcg.ir.block import HelperDecl, Op


def expand(e: Emitter, helper: HelperDecl, op: Op) -> bool:
    """Write the call in line and say True, or leave it to be a call."""
    return False
