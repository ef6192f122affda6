"""The two address spaces of an x86 machine: I/O ports and guest-physical memory.

`PortSpace` dispatches one access with one dictionary look-up to the device's bound method. `AddressSpace` keeps regions
with priorities and flattens them into an immutable `FlatView` that is swapped whole; listeners (the softmmu) get each
new view. Both answer unassigned accesses with all ones, counted in the `GuestLog`, as a PCI master abort does.

Threads: all methods run under the machine lock. A `FlatView`, being immutable, may be read without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from hw.core.device import MmioDevice, PioDevice
from hw.core.flatview import FlatRange, FlatView, Kind, Region, flatten
from hw.core.log import GuestLog

PORTS = 0x1_0000


@dataclass(frozen=True, slots=True, eq=False)
class PortWindow:
    """`length` ports at `base`; accesses wider than `max_size` are split into bytes, as the ISA bus converts them."""

    base: int
    length: int
    device: PioDevice
    name: str
    max_size: int = 1
    priority: int = 0


_Entry = tuple[int, int, Callable[[int, int], int], Callable[[int, int, int], None]]


class PortSpace:
    """The 64 Ki I/O ports. The window that holds an access's first port takes the whole access."""

    __slots__ = ("_entries", "_log", "windows")

    def __init__(self, log: GuestLog) -> None:
        self._log = log
        self._entries: dict[int, _Entry] = {}
        self.windows: list[PortWindow] = []

    def map(
        self, base: int, length: int, device: PioDevice, name: str, *, max_size: int = 1, priority: int = 0
    ) -> PortWindow:
        """Let `device` answer ports `base` to `base + length - 1`; the higher priority, then the later one, wins."""
        window = PortWindow(base, length, device, name, max_size, priority)
        self.windows.append(window)
        self._rebuild()
        return window

    def unmap(self, window: PortWindow) -> None:
        """Take a window that `map` returned away."""
        self.windows.remove(window)
        self._rebuild()

    def read(self, port: int, size: int) -> int:
        """The value an IN of `size` bytes gets."""
        entry = self._entries.get(port)
        if entry is None:
            return self._unassigned_read(port, size)
        base, max_size, read, _ = entry
        if size <= max_size:
            return read(port - base, size)
        value = 0
        for i in range(size):
            value |= self.read((port + i) & 0xFFFF, 1) << 8 * i
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """An OUT of `size` bytes."""
        entry = self._entries.get(port)
        if entry is None:
            self._unassigned_write(port, size, value)
            return
        base, max_size, _, write = entry
        if size <= max_size:
            write(port - base, size, value)
            return
        for i in range(size):
            self.write((port + i) & 0xFFFF, 1, value >> 8 * i & 0xFF)

    def _rebuild(self) -> None:
        entries: dict[int, _Entry] = {}
        for window in sorted(self.windows, key=lambda window: window.priority):
            entry = (window.base, window.max_size, window.device.pio_read, window.device.pio_write)
            for port in range(window.base, min(window.base + window.length, PORTS)):
                entries[port] = entry
        self._entries = entries

    def _unassigned_read(self, port: int, size: int) -> int:
        self._log.unimp(f"port {port:#06x}", f"read of {size} bytes")
        return (1 << 8 * size) - 1

    def _unassigned_write(self, port: int, size: int, value: int) -> None:
        self._log.unimp(f"port {port:#06x}", f"write of {size} bytes, {value:#x}")


class Memory(Protocol):
    """Guest memory as a bus master sees it."""

    def is_ram(self, gpa: int, length: int) -> bool: ...

    def dma_read(self, gpa: int, length: int) -> bytes: ...

    def dma_write(self, gpa: int, data: bytes) -> None: ...


class AddressSpace:
    """Guest-physical memory: regions over one block of RAM."""

    __slots__ = ("_batch", "_changed", "_last", "_log", "listeners", "ram", "ram_written", "regions", "view")

    def __init__(self, ram: memoryview, log: GuestLog) -> None:
        self.ram = ram
        self._log = log
        self.regions: list[Region] = []
        self.view = FlatView(())
        self.listeners: list[Callable[[FlatView], None]] = []
        # Told (gpa, length) after a bus master wrote to RAM: translated code there is stale.
        self.ram_written: list[Callable[[int, int], None]] = []
        self._last: FlatRange | None = None
        self._batch = 0
        self._changed = False

    # -- the map

    def map_ram(self, base: int, size: int, ram_offset: int, name: str, *, priority: int = 0) -> Region:
        return self._add(Region(base, size, Kind.RAM, name, ram_offset, priority=priority))

    def map_rom(self, base: int, size: int, ram_offset: int, name: str, *, priority: int = 0) -> Region:
        return self._add(Region(base, size, Kind.ROM, name, ram_offset, priority=priority))

    def map_mmio(
        self, base: int, size: int, device: MmioDevice, name: str, *, max_size: int = 4, priority: int = 0
    ) -> Region:
        """Accesses wider than `max_size` are split into pieces of `max_size`."""
        return self._add(Region(base, size, Kind.MMIO, name, 0, device, max_size, priority))

    def unmap(self, region: Region) -> None:
        """Take a region that a `map_` method returned away."""
        self.regions.remove(region)
        self._update()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several changes, one new view at the end."""
        self._batch += 1
        try:
            yield
        finally:
            self._batch -= 1
            if self._changed and not self._batch:
                self._update()

    def flatten(self) -> FlatView:
        """The present regions without overlaps."""
        return flatten(self.regions)

    def _add(self, region: Region) -> Region:
        self.regions.append(region)
        self._update()
        return region

    def _update(self) -> None:
        if self._batch:
            self._changed = True
            return
        self._changed = False
        self._last = None
        self.view = self.flatten()
        for listener in self.listeners:
            listener(self.view)

    # -- accesses

    def mmio_read(self, gpa: int, size: int) -> int:
        """A vCPU's read of `size` bytes wherever it leads; the access must not cross the end of a range by design of
        the caller (a crossing one is answered by the range of its first byte)."""
        found = self._find(gpa)
        if found is None:
            self._log.unimp(f"memory {gpa & ~0xFFF:#x}", f"read of {size} bytes at {gpa:#x}")
            return (1 << 8 * size) - 1
        if found.device is None:
            at = found.ram_offset + gpa - found.gpa
            return int.from_bytes(self.ram[at : at + size], "little")
        offset = gpa - found.gpa + found.device_offset
        if size <= found.max_size:
            return found.device.mmio_read(offset, size)
        value = 0
        step = found.max_size
        for i in range(0, size, step):
            value |= found.device.mmio_read(offset + i, step) << 8 * i
        return value

    def mmio_write(self, gpa: int, size: int, value: int) -> None:
        """A vCPU's write of `size` bytes wherever it leads; see `mmio_read`."""
        found = self._find(gpa)
        if found is None:
            self._log.unimp(f"memory {gpa & ~0xFFF:#x}", f"write of {size} bytes at {gpa:#x}, {value:#x}")
        elif found.device is None:
            if found.kind is Kind.RAM:
                self._write_ram(found, gpa, value.to_bytes(size, "little"))
        else:
            offset = gpa - found.gpa + found.device_offset
            if size <= found.max_size:
                found.device.mmio_write(offset, size, value)
                return
            step = found.max_size
            for i in range(0, size, step):
                found.device.mmio_write(offset + i, step, value >> 8 * i & ((1 << 8 * step) - 1))

    def dma_read(self, gpa: int, length: int) -> bytes:
        """A bus master's read. Only RAM and ROM answer it (no peer-to-peer transfers); all else reads as ones."""
        data = bytearray()
        while length > 0:
            found = self._find(gpa)
            if found is not None and found.device is None:
                count = min(length, found.end - gpa)
                at = found.ram_offset + gpa - found.gpa
                data += self.ram[at : at + count]
            else:
                count = min(length, self._hole(gpa, found))
                data += b"\xff" * count
            gpa += count
            length -= count
        return bytes(data)

    def dma_write(self, gpa: int, data: bytes) -> None:
        """A bus master's write. Only RAM takes it; the rest is dropped."""
        at = 0
        while at < len(data):
            found = self._find(gpa)
            if found is not None and found.device is None:
                count = min(len(data) - at, found.end - gpa)
                if found.kind is Kind.RAM:
                    self._write_ram(found, gpa, data[at : at + count])
            else:
                count = min(len(data) - at, self._hole(gpa, found))
            at += count
            gpa += count

    def is_ram(self, gpa: int, length: int) -> bool:
        """Do all these bytes lie in one range of writable RAM?"""
        found = self._find(gpa)
        return found is not None and found.kind is Kind.RAM and gpa + length <= found.end

    def _hole(self, gpa: int, found: FlatRange | None) -> int:
        """How many bytes from `gpa` on no RAM answers a bus master."""
        self._log.unimp("DMA outside RAM", f"{gpa:#x}")
        if found is not None:
            return found.end - gpa
        following = self.view.after(gpa)
        return following.gpa - gpa if following is not None else 1 << 64

    def _write_ram(self, found: FlatRange, gpa: int, data: bytes) -> None:
        data = data[: found.end - gpa]
        at = found.ram_offset + gpa - found.gpa
        self.ram[at : at + len(data)] = data
        for listener in self.ram_written:
            listener(gpa, len(data))

    def _find(self, gpa: int) -> FlatRange | None:
        last = self._last
        if last is not None and last.gpa <= gpa < last.gpa + last.size:
            return last
        found = self.view.find(gpa)
        if found is not None:
            self._last = found
        return found
