"""ACPI machine language, built from small functions that return bytes (ACPI 6.4, chapter 20).

Each function is one term of the grammar and takes its parts already encoded, so nesting calls reads like ASL:

    device("RTC", name("_HID", eisa_id("PNP0B00")), name("_CRS", resource_template(...)))

A name is written as in ASL: an optional `\\` or `^`s, then segments joined by dots.
"""

import re
import uuid
from collections.abc import Iterable
from enum import IntEnum

Term = bytes

ZERO: Term = b"\x00"
ONE: Term = b"\x01"


class Region(IntEnum):
    """Address spaces of an OperationRegion."""

    SYSTEM_MEMORY = 0
    SYSTEM_IO = 1
    PCI_CONFIG = 2


class Access(IntEnum):
    """Access width of a Field."""

    ANY = 0
    BYTE = 1
    WORD = 2
    DWORD = 3
    QWORD = 4


# --- names and lengths (20.2.2, 20.2.4)


def name_string(path: str) -> Term:
    match = re.fullmatch(r"(\\|\^*)((?:[A-Z_][A-Z0-9_]{0,3})(?:\.[A-Z_][A-Z0-9_]{0,3})*)?", path)
    assert match is not None, path
    prefix = match[1].encode()
    segments = [segment.ljust(4, "_").encode() for segment in match[2].split(".")] if match[2] else []
    if not segments:
        return prefix + b"\x00"
    if len(segments) == 1:
        return prefix + segments[0]
    if len(segments) == 2:
        return prefix + b"\x2e" + b"".join(segments)
    return prefix + b"\x2f" + bytes([len(segments)]) + b"".join(segments)


def package_length(size: int) -> bytes:
    """PkgLength for `size` bytes that follow it; the value counts its own bytes too."""
    if size + 1 < 0x40:
        return bytes([size + 1])
    for extra in (1, 2, 3):
        total = size + 1 + extra
        if total < 1 << 4 + 8 * extra:
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise AssertionError(size)


def _packaged(op: bytes, *content: bytes) -> Term:
    body = b"".join(content)
    return op + package_length(len(body)) + body


# --- data (20.2.3)


def integer(value: int) -> Term:
    """The shortest encoding of an unsigned 64-bit constant."""
    if value <= 1:
        return bytes([value])
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4), (0x0E, 8)):
        if value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise AssertionError(value)


def string(text: str) -> Term:
    return b"\x0d" + text.encode("ascii") + b"\0"


def buffer(data: bytes) -> Term:
    return _packaged(b"\x11", integer(len(data)), data)


def package(*elements: Term) -> Term:
    return _packaged(b"\x12", bytes([len(elements)]), *elements)


def eisa_id(text: str) -> Term:
    """A compressed EISA id such as PNP0A03: three letters of five bits, four hexadecimal digits, big-endian."""
    letters = 0
    for letter in text[:3]:
        letters = letters << 5 | ord(letter) - 0x40
    return b"\x0c" + (letters << 16 | int(text[3:], 16)).to_bytes(4, "big")


def to_uuid(text: str) -> Term:
    """ASL's ToUUID: the first three fields little-endian, the rest as written."""
    return buffer(uuid.UUID(text).bytes_le)


# --- named objects (20.2.5)


def name(path: str, value: Term) -> Term:
    return b"\x08" + name_string(path) + value


def scope(path: str, *terms: Term) -> Term:
    return _packaged(b"\x10", name_string(path), *terms)


def device(path: str, *terms: Term) -> Term:
    return _packaged(b"\x5b\x82", name_string(path), *terms)


def method(path: str, arguments: int, *terms: Term, serialized: bool = False) -> Term:
    return _packaged(b"\x14", name_string(path), bytes([arguments | serialized << 3]), *terms)


def operation_region(path: str, space: Region, offset: int, size: int) -> Term:
    return b"\x5b\x80" + name_string(path) + bytes([space]) + integer(offset) + integer(size)


def field(region: str, access: Access, units: Iterable[tuple[str, int]], *, lock: bool = False) -> Term:
    """A Field over `region` with update rule Preserve. Each unit is (name, bits); an empty name skips bits."""
    flags = bytes([access | lock << 4])
    return _packaged(b"\x5b\x81", name_string(region), flags, *(_field_unit(unit, bits) for unit, bits in units))


def _field_unit(unit: str, bits: int) -> bytes:
    """A field unit; its width is in PkgLength's form but does not count itself."""
    if bits < 0x40:
        width = bytes([bits])
    else:
        width = bytes([0x40 | bits & 0xF, bits >> 4])
    return (name_string(unit) if unit else b"\x00") + width


def create_dword_field(source: Term, offset: int, path: str) -> Term:
    return b"\x8a" + source + integer(offset) + name_string(path)


# --- statements and expressions (20.2.5.3, 20.2.5.4)


def arg(index: int) -> Term:
    return bytes([0x68 + index])


def local(index: int) -> Term:
    return bytes([0x60 + index])


def ref(path: str) -> Term:
    """The value of a named object, or the object itself as a target."""
    return name_string(path)


def call(path: str, *arguments: Term) -> Term:
    return name_string(path) + b"".join(arguments)


def store(value: Term, target: Term) -> Term:
    return b"\x70" + value + target


def and_(left: Term, right: Term, target: Term = ZERO) -> Term:
    return b"\x7b" + left + right + target


def or_(left: Term, right: Term, target: Term = ZERO) -> Term:
    return b"\x7d" + left + right + target


def equal(left: Term, right: Term) -> Term:
    return b"\x93" + left + right


def not_equal(left: Term, right: Term) -> Term:
    return b"\x92" + equal(left, right)


def if_(condition: Term, *terms: Term) -> Term:
    return _packaged(b"\xa0", condition, *terms)


def else_(*terms: Term) -> Term:
    """Must follow an `if_` directly."""
    return _packaged(b"\xa1", *terms)


def return_(value: Term) -> Term:
    return b"\xa4" + value
