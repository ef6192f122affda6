"""Declared structs: every layout that native code touches is declared once as a `Struct`, offsets are derived.

    TLB_ENTRY = Struct("TlbEntry", field("read", 8), field("write", 8), field("code", 8), field("addend", 8))
    TLB_ENTRY.offset("addend")   # 24

Native (Numba) code freezes such offsets as module constants; Python reads fields through `View`.
"""

import ctypes
from dataclasses import dataclass

_CTYPES: dict[int, type[ctypes.c_uint8] | type[ctypes.c_uint16] | type[ctypes.c_uint32] | type[ctypes.c_uint64]] = {
    1: ctypes.c_uint8,
    2: ctypes.c_uint16,
    4: ctypes.c_uint32,
    8: ctypes.c_uint64,
}


@dataclass(frozen=True, slots=True)
class Field:
    """`count` elements of `size` bytes (16: a vector or 80-bit float slot), `stride` bytes apart; `doc`: what it is."""

    name: str
    size: int
    count: int
    stride: int
    align: int
    doc: str


def field(name: str, size: int, doc: str = "", *, count: int = 1, stride: int = 0, align: int = 0) -> Field:
    stride = stride or size
    return Field(name, size, count, stride, align or min(size, 16), doc)


class Struct:
    """Fields at naturally aligned offsets in order of declaration from `base` on; `size`: where the next may begin."""

    def __init__(self, name: str, *fields: Field, base: int = 0, limit: int | None = None) -> None:
        self.name = name
        self.fields: dict[str, Field] = {}
        self._offsets: dict[str, int] = {}
        at = base
        for f in fields:
            assert f.name not in self.fields, f"{name}.{f.name} declared twice"
            at = (at + f.align - 1) & -f.align
            self.fields[f.name] = f
            self._offsets[f.name] = at
            at += f.stride * f.count
        self.size = (at + 15) & -16
        assert limit is None or self.size <= limit, f"{name} takes {self.size} bytes, has {limit}"

    def offset(self, name: str, index: int = 0) -> int:
        f = self.fields[name]
        assert 0 <= index < f.count, (name, index)
        return self._offsets[name] + f.stride * index

    def extend(self, name: str, *fields: Field, base: int, limit: int | None = None) -> "Struct":
        """A struct with all fields of this one plus `fields` from offset `base` on."""
        assert base >= self.size
        more = Struct(name, *fields, base=base, limit=limit)
        more.fields = self.fields | more.fields
        more._offsets = self._offsets | more._offsets
        return more


class View:
    """Python's access to one struct in raw memory at `address`."""

    __slots__ = ("address", "struct")

    def __init__(self, struct: Struct, address: int) -> None:
        self.struct = struct
        self.address = address

    def get(self, name: str, index: int = 0) -> int:
        at = self.address + self.struct.offset(name, index)
        size = self.struct.fields[name].size
        if size == 16:
            return int.from_bytes(ctypes.string_at(at, 16), "little")
        return int(_CTYPES[size].from_address(at).value)

    def set(self, name: str, value: int, index: int = 0) -> None:
        at = self.address + self.struct.offset(name, index)
        size = self.struct.fields[name].size
        if size == 16:
            ctypes.memmove(at, (value & (1 << 128) - 1).to_bytes(16, "little"), 16)
        else:
            _CTYPES[size].from_address(at).value = value & (1 << 8 * size) - 1
