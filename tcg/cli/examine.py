"""`x` and `xp` of the monitor: guest memory as numbers, characters or instructions.

    x /COUNT FORMAT SIZE ADDRESS     formats x d u o c i; sizes b h w g; the address may name registers: $rsp+8

Format and size stay for the next command, as in QEMU.
"""

import re

from hw.core.bus import AddressSpace
from hw.core.flatview import Kind
from tcg.cli.x86_debug import code_bits, read_virtual, register
from tcg.runtime.struct import View

_OPTIONS = re.compile(r"/(\d*)([a-z]*)$")
_SIZES = {"b": 1, "h": 2, "w": 4, "g": 8}
_BYTES_A_LINE = 16
_LONGEST_INSN = 15
MAX_COUNT = 1 << 16
_M64 = (1 << 64) - 1


class ExamineError(Exception):
    """What the user is told."""


class Examiner:
    """See the module. `env`: the vCPU's state; `memory`: the board's."""

    def __init__(self, env: View, memory: AddressSpace) -> None:
        self._env = env
        self._memory = memory
        self._format = "x"
        self._size = 4

    def examine(self, words: list[str], *, physical: bool) -> str:
        count = 1
        if words and words[0].startswith("/"):
            count = self._options(words[0])
            words = words[1:]
        if not words:
            raise ExamineError("an address is missing")
        address = self._address("".join(words))
        if self._format == "i":
            return self._instructions(address, count, physical=physical)
        size = 1 if self._format == "c" else self._size
        data = self._read(address, count * size, physical=physical)
        lines = []
        for at in range(0, count * size, _BYTES_A_LINE):
            part = data[at : min(at + _BYTES_A_LINE, count * size)]
            values = [int.from_bytes(part[n : n + size], "little") for n in range(0, len(part) - size + 1, size)]
            if values:
                lines.append(f"{address + at & _M64:016x}: {' '.join(self._show(v, size) for v in values)}")
            if len(part) < min(_BYTES_A_LINE, count * size - at):
                lines.append(f"{address + at + len(part) & _M64:016x}: Cannot access memory")
                break
        return "\n".join(lines)

    def _options(self, text: str) -> int:
        """Take /COUNT FORMAT SIZE in QEMU's way: letters in any order; the count."""
        found = _OPTIONS.match(text)
        if found is None:
            raise ExamineError(f"'{text}': give /COUNT, a format of xduoci and a size of bhwg")
        for letter in found[2]:
            if letter in _SIZES:
                self._size = _SIZES[letter]
            elif letter in "xduoci":
                self._format = letter
            else:
                raise ExamineError(f"invalid char in format: '{letter}'")
        count = int(found[1] or 1)
        if not 0 < count <= MAX_COUNT:
            raise ExamineError(f"a count is 1 to {MAX_COUNT}")
        return count

    def _address(self, text: str) -> int:
        total = 0
        for sign, term in re.findall(r"([+-]?)([^+-]+)", text):
            if term.startswith("$"):
                value = register(self._env, term[1:])
                if value is None:
                    raise ExamineError(f"unknown register '{term}'")
            else:
                try:
                    value = int(term, 0)
                except ValueError:
                    raise ExamineError(f"'{term}' is no number") from None
            total += -value if sign == "-" else value
        return total & _M64

    def _read(self, address: int, length: int, *, physical: bool) -> bytes:
        if not physical:
            return read_virtual(self._env, self._physical, address, length)
        data = bytearray()
        while len(data) < length:
            at = address + len(data)
            part = self._physical(at, min(length - len(data), 4096 - at % 4096))
            if part is None:
                break
            data += part
        return bytes(data)

    def _physical(self, gpa: int, length: int) -> bytes | None:
        found = self._memory.view.find(gpa)
        if found is None or found.kind is Kind.MMIO or gpa + length > found.end:
            return None
        at = found.ram_offset + gpa - found.gpa
        return bytes(self._memory.ram[at : at + length])

    def _show(self, value: int, size: int) -> str:
        match self._format:
            case "d":
                signed = value - (1 << 8 * size) if value >> 8 * size - 1 else value
                return f"{signed:>{(size * 80 + 32) // 33}}"
            case "u":
                return f"{value:>{(size * 80 + 32) // 33}}"
            case "o":
                return f"0{value:0{(size * 8 + 2) // 3}o}"
            case "c":
                return _character(value)
        return f"0x{value:0{2 * size}x}"

    def _instructions(self, address: int, count: int, *, physical: bool) -> str:
        import capstone

        from tcg.cli.disassemble import disassemble
        from tcg.exec.log import asm_line

        bits = code_bits(self._env)
        mode = {64: capstone.CS_MODE_64, 32: capstone.CS_MODE_32, 16: capstone.CS_MODE_16}[bits]
        handle = capstone.Cs(capstone.CS_ARCH_X86, mode)
        handle.syntax = capstone.CS_OPT_SYNTAX_ATT
        data = self._read(address, count * _LONGEST_INSN, physical=physical)
        lines = disassemble(handle, data, address)[:count]
        text = "".join(map(asm_line, lines)).rstrip("\n")
        if len(lines) < count:
            text += f"\n{address + len(data) & _M64:016x}: Cannot access memory"
        return text.lstrip("\n")


def _character(value: int) -> str:
    escapes = {0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"}
    if value in escapes:
        return f"'{escapes[value]}'"
    return f"'{chr(value)}'" if 32 <= value < 127 else f"'\\x{value:02x}'"
