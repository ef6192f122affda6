"""The memory map as values: regions with priorities, and the flat view without overlaps that they come to.

All immutable: a view is computed afresh when a region changes and swapped whole, so any thread may read one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from hw.core.device import MmioDevice


class Kind(IntEnum):
    """What stands behind a range of guest-physical addresses."""

    RAM = 0
    ROM = 1  # reads come from RAM, writes are dropped
    MMIO = 2


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A piece of the memory map before overlaps are resolved."""

    base: int
    size: int
    kind: Kind
    name: str
    ram_offset: int = 0
    device: MmioDevice | None = None
    max_size: int = 4
    priority: int = 0


@dataclass(frozen=True, slots=True)
class FlatRange:
    """`size` bytes from `gpa`: of RAM from `ram_offset`, or of `device` from `device_offset`."""

    gpa: int
    size: int
    kind: Kind
    name: str
    ram_offset: int = 0
    device: MmioDevice | None = None
    device_offset: int = 0
    max_size: int = 4

    @property
    def end(self) -> int:
        return self.gpa + self.size


class FlatView:
    """The memory map without overlaps: ascending, disjoint ranges. Gaps are unassigned."""

    __slots__ = ("_starts", "ranges")

    def __init__(self, ranges: tuple[FlatRange, ...]) -> None:
        self.ranges = ranges
        self._starts = [r.gpa for r in ranges]

    def __iter__(self) -> Iterator[FlatRange]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def find(self, gpa: int) -> FlatRange | None:
        """The range that holds `gpa`, None when it is unassigned."""
        index = bisect_right(self._starts, gpa) - 1
        if index < 0:
            return None
        found = self.ranges[index]
        return found if gpa < found.end else None

    def after(self, gpa: int) -> FlatRange | None:
        """The first range that starts beyond `gpa`."""
        index = bisect_right(self._starts, gpa)
        return self.ranges[index] if index < len(self.ranges) else None


def flatten(regions: Iterable[Region]) -> FlatView:
    """Resolve overlaps: the higher priority wins, then the later region. Neighbours that continue are merged."""
    ordered = sorted(regions, key=lambda region: region.priority)
    cuts = sorted({edge for region in ordered for edge in (region.base, region.base + region.size)})
    ranges: list[FlatRange] = []
    for gpa, end in pairwise(cuts):
        top: Region | None = None
        for region in ordered:
            if region.base <= gpa < region.base + region.size:
                top = region
        if top is None:
            continue
        piece = _piece(top, gpa, end - gpa)
        if ranges and _continues(ranges[-1], piece):
            previous = ranges.pop()
            piece = _piece_join(previous, piece)
        ranges.append(piece)
    return FlatView(tuple(ranges))


def _piece(region: Region, gpa: int, size: int) -> FlatRange:
    inside = gpa - region.base
    if region.kind is Kind.MMIO:
        return FlatRange(gpa, size, region.kind, region.name, 0, region.device, inside, region.max_size)
    return FlatRange(gpa, size, region.kind, region.name, region.ram_offset + inside)


def _continues(a: FlatRange, b: FlatRange) -> bool:
    if a.end != b.gpa or a.kind is not b.kind or a.device is not b.device or a.name != b.name:
        return False
    if a.device is None:
        return a.ram_offset + a.size == b.ram_offset
    return a.device_offset + a.size == b.device_offset


def _piece_join(a: FlatRange, b: FlatRange) -> FlatRange:
    return FlatRange(a.gpa, a.size + b.size, a.kind, a.name, a.ram_offset, a.device, a.device_offset, a.max_size)
