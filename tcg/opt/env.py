"""Guest state within a block: which bytes hold which value (forward), and which stores nobody can see (backward).

A place is a constant range of env or a range relative to a hole. Places of one hole compare by their offsets; otherwise
two places may be the same bytes unless their possible ranges (a hole's `span`) are disjoint. Only guest state is
tracked: the common part of env (below GUEST_BASE) is changed by the run-time, by other threads and by FP ops.
"""

from dataclasses import dataclass

from tcg.ir.block import EnvRef, Operand
from tcg.ir.types import Type
from tcg.runtime.layout import ENV_LIMIT, GUEST_BASE

_ANYWHERE = (0, ENV_LIMIT)


@dataclass(frozen=True, slots=True)
class Place:
    """Bytes [start, end) relative to `hole` (None: to env), always within [first, last) of env."""

    hole: str | None
    start: int
    end: int
    first: int
    last: int

    @property
    def tracked(self) -> bool:
        return self.first >= GUEST_BASE

    def may_overlap(self, other: "Place") -> bool:
        if self.hole == other.hole:
            return self.start < other.end and other.start < self.end
        return self.first < other.last and other.first < self.last

    def covers(self, other: "Place") -> bool:
        """Certainly contains every byte of `other`."""
        return self.hole == other.hole and self.start <= other.start and other.end <= self.end


def place_of(ref: EnvRef, size: int) -> Place:
    """The place of a direct access of `size` bytes."""
    start, end = ref.offset, ref.offset + size
    if ref.hole is None:
        return Place(None, start, end, start, end)
    first, last = ref.span if ref.span != (0, 0) else _ANYWHERE
    return Place(ref.hole.name, start, end, first, last)


def place_of_indexed(ref: EnvRef, span: int) -> Place:
    """Where ldx or stx may touch env: any of `span` bytes from ref."""
    start, end = ref.offset, ref.offset + span
    if ref.hole is None:
        return Place(None, start, end, start, end)
    first, last = (ref.span[0], ref.span[1] + span) if ref.span != (0, 0) else _ANYWHERE
    return Place(ref.hole.name, start, end, first, last)


@dataclass(slots=True)
class Contents:
    """Forward: the values that places are known to hold."""

    known: dict[Place, Operand]

    def __init__(self) -> None:
        self.known = {}

    def forget(self) -> None:
        self.known.clear()

    def forget_overlapping(self, place: Place) -> None:
        known = self.known
        if known:
            for other in [other for other in known if other.may_overlap(place)]:
                del known[other]

    def record(self, place: Place, value: Operand) -> None:
        if place.tracked:
            self.known[place] = value

    def exact(self, place: Place) -> Operand | None:
        """What the whole place holds, in the type it was stored with."""
        return self.known.get(place)

    def around(self, place: Place, type_: Type) -> Operand | None:
        """An integer wider than `type_` that starts where `place` starts."""
        for other, value in self.known.items():
            if (
                other.start == place.start
                and other.hole == place.hole
                and other.end > place.end
                and value.type.kind == type_.kind == "int"
            ):
                return value
        return None

    def vector_around(self, place: Place) -> tuple[Operand, int] | None:
        """A vector that contains the place, and where in it that begins."""
        for other, value in self.known.items():
            if value.type is Type.V128 and other.covers(place):
                return value, place.start - other.start
        return None


@dataclass(slots=True)
class Overwritten:
    """Backward: places that are written again before anything can read them."""

    places: list[Place]

    def __init__(self) -> None:
        self.places = []

    def forget(self) -> None:
        self.places.clear()

    def read(self, place: Place) -> None:
        if self.places:
            self.places = [other for other in self.places if not other.may_overlap(place)]

    def written(self, place: Place) -> bool:
        """Note a store; True when nobody can see it."""
        if not place.tracked:
            return False
        if any(other.covers(place) for other in self.places):
            return True
        self.places.append(place)
        return False
