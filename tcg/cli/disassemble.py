"""Disassembly for people: every byte is shown, whether it belongs to an instruction or not."""

import capstone

from tcg.exec.log import Line


def disassemble(handle: capstone.Cs, code: bytes, address: int) -> list[Line]:
    """Instructions of `code`; a byte that begins none is shown as data."""
    lines: list[Line] = []
    at = 0
    while at < len(code):
        for insn in handle.disasm(code[at:], address + at):
            lines.append((insn.address, bytes(insn.bytes), f"{insn.mnemonic:<8} {insn.op_str}"))
            at += insn.size
        if at < len(code):
            lines.append((address + at, code[at : at + 1], f"{'.byte':<8} 0x{code[at]:02x}"))
            at += 1
    return lines
