"""A declarative register map: rows copied in the data sheet's order, checked when the module is imported.

A map is a tuple of `Reg` rows; a row's fields run from bit 0 upwards and their widths must add up to the register's
size. `RegFile` holds one device's values and applies the field policies to accesses of any size and alignment.

Policies, by the data sheets' names: RW; RO; W1C write one to clear; W1S write one to set; RC cleared by a read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum


class Policy(Enum):
    """What a guest's access does to a field."""

    RW = "RW"
    RO = "RO"
    W1C = "W1C"
    W1S = "W1S"
    RC = "RC"


RW, RO, W1C, W1S, RC = Policy


@dataclass(frozen=True, slots=True)
class Field:
    """`width` bits, in sequence; `reset` is the value after reset."""

    name: str
    width: int
    policy: Policy = RW
    reset: int = 0

    def __post_init__(self) -> None:
        if self.width <= 0 or not 0 <= self.reset < 1 << self.width:
            raise ValueError(f"field {self.name}: reset {self.reset:#x} does not fit {self.width} bits")


def reserved(width: int) -> Field:
    """Bits that read as zero and ignore writes."""
    return Field("-", width, RO)


@dataclass(frozen=True, slots=True)
class Reg:
    """One register: `size` bytes at `offset`. Without fields it is one RW field of that size."""

    offset: int
    name: str
    size: int
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        if not self.fields:
            object.__setattr__(self, "fields", (Field(self.name, 8 * self.size),))
        width = sum(field.width for field in self.fields)
        if width != 8 * self.size:
            raise ValueError(f"register {self.name}: fields have {width} bits, the register {8 * self.size}")

    def mask(self, policy: Policy) -> int:
        """The bits under `policy`."""
        mask = shift = 0
        for field in self.fields:
            if field.policy is policy:
                mask |= ((1 << field.width) - 1) << shift
            shift += field.width
        return mask

    @property
    def reset(self) -> int:
        """The register's value after reset."""
        value = shift = 0
        for field in self.fields:
            value |= field.reset << shift
            shift += field.width
        return value


class RegMap:
    """The rows of one block of `size` bytes, and the bit masks derived from them. Bytes without a row read as zero."""

    __slots__ = ("by_name", "rc", "reg_at", "regs", "reset", "rw", "size", "w1c", "w1s")

    def __init__(self, size: int, regs: Iterable[Reg]) -> None:
        self.size = size
        self.regs = tuple(regs)
        self.by_name = {reg.name: reg for reg in self.regs}
        if len(self.by_name) != len(self.regs):
            raise ValueError("a register name occurs twice")
        self.reg_at: list[Reg | None] = [None] * size
        for reg in self.regs:
            for at in range(reg.offset, reg.offset + reg.size):
                other = self.reg_at[at]
                if other is not None:
                    raise ValueError(f"registers {other.name} and {reg.name} overlap")
                self.reg_at[at] = reg
        self.reset = self._pack(lambda reg: reg.reset)
        self.rw = self._pack(lambda reg: reg.mask(RW))
        self.w1c = self._pack(lambda reg: reg.mask(W1C))
        self.w1s = self._pack(lambda reg: reg.mask(W1S))
        self.rc = self._pack(lambda reg: reg.mask(RC))

    def _pack(self, value: Callable[[Reg], int]) -> bytes:
        packed = bytearray(self.size)
        for reg in self.regs:
            packed[reg.offset : reg.offset + reg.size] = value(reg).to_bytes(reg.size, "little")
        return bytes(packed)


ReadHook = Callable[[], int]
WriteHook = Callable[[int, int], None]


class RegFile:
    """The values of one device's register block.

    `on_read[name]()` supplies a register's current value just before a guest reads it (counters, live status).
    `on_write[name](old, written)` runs after a guest's write that touched the register: `old` is its value before,
    `written` the bits that the guest wrote, at their places (zero elsewhere). Access from the device itself goes
    through `get` and `set`, which apply no policy and call no hook.
    """

    __slots__ = ("data", "map", "on_read", "on_write")

    def __init__(self, map: RegMap) -> None:
        self.map = map
        self.data = bytearray(map.reset)
        self.on_read: dict[str, ReadHook] = {}
        self.on_write: dict[str, WriteHook] = {}

    def reset(self) -> None:
        """Every register to its reset value; no hook runs."""
        self.data[:] = self.map.reset

    def save(self) -> bytes:
        return bytes(self.data)

    def load(self, saved: bytes) -> None:
        self.data[:] = saved

    def get(self, name: str) -> int:
        reg = self.map.by_name[name]
        return int.from_bytes(self.data[reg.offset : reg.offset + reg.size], "little")

    def set(self, name: str, value: int) -> None:
        reg = self.map.by_name[name]
        self.data[reg.offset : reg.offset + reg.size] = value.to_bytes(reg.size, "little")

    def read(self, offset: int, size: int) -> int:
        """A guest's read; bytes beyond the block are zero."""
        if self.on_read:
            for reg in self._touched(offset, size):
                hook = self.on_read.get(reg.name)
                if hook is not None:
                    self.set(reg.name, hook())
        value = int.from_bytes(self.data[offset : offset + size], "little")
        clear = int.from_bytes(self.map.rc[offset : offset + size], "little")
        if value & clear:
            self._store(offset, size, value & ~clear)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """A guest's write; bits beyond the block are dropped."""
        end = offset + size
        old = int.from_bytes(self.data[offset:end], "little")
        rw = int.from_bytes(self.map.rw[offset:end], "little")
        new = (old & ~rw) | (value & rw)
        new &= ~(value & int.from_bytes(self.map.w1c[offset:end], "little"))
        new |= value & int.from_bytes(self.map.w1s[offset:end], "little")
        if not self.on_write:
            self._store(offset, size, new)
            return
        hooked = [(reg, self.get(reg.name)) for reg in self._touched(offset, size) if reg.name in self.on_write]
        self._store(offset, size, new)
        for reg, before in hooked:
            shift = 8 * (offset - reg.offset)
            written = value << shift if shift >= 0 else value >> -shift
            self.on_write[reg.name](before, written & ((1 << 8 * reg.size) - 1))

    def _store(self, offset: int, size: int, value: int) -> None:
        end = min(offset + size, self.map.size)
        if offset < end:
            count = end - offset
            self.data[offset:end] = (value & ((1 << 8 * count) - 1)).to_bytes(count, "little")

    def _touched(self, offset: int, size: int) -> list[Reg]:
        touched: list[Reg] = []
        for reg in self.map.reg_at[offset : offset + size]:
            if reg is not None and (not touched or touched[-1] is not reg):
                touched.append(reg)
        return touched
