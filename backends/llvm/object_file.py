"""LLVM's relocatable ELF-64 object, as much of it as stencils need (System V gABI, chapter 4).

pyelftools reads the same, but takes 3 ms an object, more than LLVM itself takes for a few stencils.
"""

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _STT_SECTION = 2, 4, 8, 3


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    data: bytes
    entry_size: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """section: the number of the section that defines it, 0 when undefined. names_section: it stands for all of it."""

    name: str
    section: int
    value: int
    names_section: bool


@dataclass(frozen=True, slots=True)
class Relocation:
    offset: int
    kind: int  # R_X86_64_*
    symbol: Symbol
    addend: int


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()


class ObjectFile:
    """sections by number; `section_number` by name (the last of that name); `relocations` by section number."""

    def __init__(self, data: bytes) -> None:
        header = _HEADER.unpack_from(data)
        table, count, names_index = header[5], header[11], header[12]
        rows = [_SECTION.unpack_from(data, table + i * _SECTION.size) for i in range(count)]

        def content(row: tuple[int, ...]) -> bytes:
            return b"" if row[1] == _SHT_NOBITS else data[row[4] : row[4] + row[5]]

        names = content(rows[names_index])
        self.sections = [Section(_text(names, row[0]), content(row), row[9]) for row in rows]
        self.section_number = {s.name: i for i, s in enumerate(self.sections)}
        symbols: list[Symbol] = []
        for row in rows:
            if row[1] == _SHT_SYMTAB:
                strings = content(rows[row[6]])
                symbols = [
                    Symbol(_text(strings, name), section, value, info & 15 == _STT_SECTION)
                    for name, info, _, section, value, _ in _SYMBOL.iter_unpack(content(row))
                ]
        self.relocations: dict[int, list[Relocation]] = {}
        for row in rows:
            if row[1] == _SHT_RELA:
                self.relocations[row[7]] = [
                    Relocation(offset, info & 0xFFFFFFFF, symbols[info >> 32], addend)
                    for offset, info, addend in _RELA.iter_unpack(content(row))
                ]
