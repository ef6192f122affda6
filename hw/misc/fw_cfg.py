"""fw_cfg: the firmware configuration device (QEMU's docs/specs/fw_cfg: the interface, as guests know it).

Selector at port 0x510 (16 bits), data at 0x511 (8 bits), DMA address at 0x514 (64 bits, big-endian). Items are byte
strings under 16-bit keys; files have a name and a key from 0x20 on, listed in the directory item.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hw.core.bus import Memory

SIGNATURE = 0x00
ID = 0x01
UUID = 0x02
RAM_SIZE = 0x03
NOGRAPHIC = 0x04
NB_CPUS = 0x05
KERNEL_ADDR = 0x07
KERNEL_SIZE = 0x08
KERNEL_CMDLINE = 0x09
INITRD_ADDR = 0x0A
INITRD_SIZE = 0x0B
BOOT_DEVICE = 0x0C
NUMA = 0x0D
BOOT_MENU = 0x0E
MAX_CPUS = 0x0F
KERNEL_ENTRY = 0x10
KERNEL_DATA = 0x11
INITRD_DATA = 0x12
CMDLINE_ADDR = 0x13
CMDLINE_SIZE = 0x14
CMDLINE_DATA = 0x15
SETUP_ADDR = 0x16
SETUP_SIZE = 0x17
SETUP_DATA = 0x18
FILE_DIR = 0x19
FILE_FIRST = 0x20
FILE_SLOTS = 0x20

ID_TRADITIONAL = 1
ID_DMA = 2
DMA_SIGNATURE = 0x5145_4D55_2043_4647  # "QEMU CFG"

DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 1, 2, 4, 8, 16
NAME_BYTES = 56


class FwCfg:
    """The items, the selector and the DMA engine. Machine lock held throughout."""

    WIRING = ("_dma_memory", "_files", "_items", "_written")
    STATISTICS = ("dma_bytes",)
    SAVED = ("dma_address", "offset", "selected")
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, memory: Memory) -> None:
        self._dma_memory = memory
        self._items: dict[int, bytearray] = {}
        self._files: dict[str, int] = {}
        self._written: dict[int, Callable[[], None]] = {}
        self.dma_bytes = 0
        self.add_bytes(SIGNATURE, b"QEMU")
        self.add_i32(ID, ID_TRADITIONAL | ID_DMA)
        self._update_directory()
        self.reset()

    def reset(self) -> None:
        self.selected = 0
        self.offset = 0
        self.dma_address = 0

    # -- what the board offers

    def add_bytes(self, key: int, data: bytes) -> None:
        self._items[key] = bytearray(data)

    def add_i16(self, key: int, value: int) -> None:
        self.add_bytes(key, value.to_bytes(2, "little"))

    def add_i32(self, key: int, value: int) -> None:
        self.add_bytes(key, value.to_bytes(4, "little"))

    def add_i64(self, key: int, value: int) -> None:
        self.add_bytes(key, value.to_bytes(8, "little"))

    def add_string(self, key: int, text: str) -> None:
        self.add_bytes(key, text.encode() + b"\0")

    def add_file(self, name: str, data: bytes, *, written: Callable[[], None] | None = None) -> int:
        """Offer (or replace) a named file; with `written` a guest may write it by DMA. Returns its key."""
        if len(name.encode()) >= NAME_BYTES:
            raise ValueError(f"fw_cfg file name {name!r} is longer than {NAME_BYTES - 1} bytes")
        key = self._files.get(name)
        if key is None:
            key = FILE_FIRST + len(self._files)
            self._files[name] = key
        self._items[key] = bytearray(data)
        if written is not None:
            self._written[key] = written
        self._update_directory()
        return key

    def file(self, name: str) -> bytes | None:
        """A file's present content."""
        key = self._files.get(name)
        return None if key is None else bytes(self._items[key])

    def _update_directory(self) -> None:
        rows = [struct.pack(">I", len(self._files))]
        for name in sorted(self._files):
            key = self._files[name]
            rows.append(struct.pack(">IHH56s", len(self._items[key]), key, 0, name.encode()))
        self._items[FILE_DIR] = bytearray(b"".join(rows))

    # -- ports 0x510 and 0x511

    def _select(self, key: int) -> None:
        self.selected = key & 0x3FFF  # bit 14, write mode, has been ignored since 2.4; bit 15: arch-local, in the key
        if key & 0x8000:
            self.selected = key & 0xBFFF
        self.offset = 0

    def _take(self, length: int) -> bytes:
        """The next bytes of the item; beyond its end they are zero."""
        item = self._items.get(self.selected, b"")
        data = bytes(item[self.offset : self.offset + length])
        if self.selected in self._items:
            self.offset = min(self.offset + length, len(item))
        return data.ljust(length, b"\0")

    def pio_read(self, offset: int, size: int) -> int:
        return self._take(1)[0] if size == 1 else 0  # both ports, as QEMU's combined register answers

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if size == 2:
            self._select(value)

    # -- DMA

    def write_dma_address(self, value: int) -> None:
        """The low half of the address register has been written: run the transfer."""
        gpa = self.dma_address | value
        self.dma_address = 0
        if not self._dma_memory.is_ram(gpa, 16):
            return  # nobody could read the answer
        control, length, address = struct.unpack(">IIQ", self._dma_memory.dma_read(gpa, 16))
        if control & DMA_SELECT:
            self._select(control >> 16)
        result = 0
        if control & DMA_READ:
            self._dma_out(address, length)
        elif control & DMA_WRITE:
            result = 0 if self._dma_in(address, length) else DMA_ERROR
        elif control & DMA_SKIP and self.selected in self._items:
            self.offset = min(self.offset + length, len(self._items[self.selected]))
        self._dma_memory.dma_write(gpa, struct.pack(">I", result))

    def _dma_out(self, address: int, length: int) -> None:
        self.dma_bytes += length
        while length:
            count = min(length, 1 << 20)
            self._dma_memory.dma_write(address, self._take(count))
            address += count
            length -= count

    def _dma_in(self, address: int, length: int) -> bool:
        """False: the item is read-only or too short."""
        item = self._items.get(self.selected)
        if item is None or self.selected not in self._written or self.offset + length > len(item):
            return False
        item[self.offset : self.offset + length] = self._dma_memory.dma_read(address, length)
        self.offset += length
        self._written[self.selected]()
        return True


class FwCfgDma:
    """Ports 0x514 to 0x51B: the DMA address register, big-endian; it reads as the signature."""

    WIRING = ("_fw_cfg",)
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, fw_cfg: FwCfg) -> None:
        self._fw_cfg = fw_cfg

    def pio_read(self, offset: int, size: int) -> int:
        data = DMA_SIGNATURE.to_bytes(8, "big")[offset : offset + size]
        return int.from_bytes(data, "little")

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        swapped = int.from_bytes(value.to_bytes(4, "little"), "big")
        if offset == 0:
            self._fw_cfg.dma_address = swapped << 32
        elif offset == 4:
            self._fw_cfg.write_dma_address(swapped)
