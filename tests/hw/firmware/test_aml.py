"""AML encodings, against the grammar of ACPI 6.4 chapter 20 (bytes worked out by hand)."""

import pytest

from hw.firmware.acpi import aml, resources


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("_SB", b"_SB_"),
        ("\\_SB", b"\\_SB_"),
        ("^FOO", b"^FOO_"),
        ("\\", b"\\\x00"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("\\_SB.PCI0.SF8.PRQA", b"\\\x2f\x04_SB_PCI0SF8_PRQA"),
    ],
)
def test_name_string(path: str, encoded: bytes) -> None:
    assert aml.name_string(path) == encoded


@pytest.mark.parametrize("path", ["", "lower", "TOOLONG", "A..B", "1ABC"])
def test_bad_names_are_refused(path: str) -> None:
    if path:
        with pytest.raises(AssertionError):
            aml.name_string(path)
    else:
        assert aml.name_string(path) == b"\x00"


@pytest.mark.parametrize(
    ("size", "encoded"),
    [
        (0, b"\x01"),
        (0x3E, b"\x3f"),
        (0x3F, b"\x41\x04"),
        (0xFFD, b"\x4f\xff"),
        (0xFFE, b"\x81\x00\x01"),
        (0xFFFFC, b"\x8f\xff\xff"),
        (0xFFFFD, b"\xc1\x00\x00\x01"),
    ],
)
def test_package_length_counts_itself(size: int, encoded: bytes) -> None:
    assert aml.package_length(size) == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (2, b"\x0a\x02"),
        (0x100, b"\x0b\x00\x01"),
        (0x10000, b"\x0c\x00\x00\x01\x00"),
        (1 << 32, b"\x0e\x00\x00\x00\x00\x01\x00\x00\x00"),
    ],
)
def test_integer_is_the_shortest(value: int, encoded: bytes) -> None:
    assert aml.integer(value) == encoded


def test_eisa_id() -> None:
    assert aml.eisa_id("PNP0A03") == b"\x0c\x41\xd0\x0a\x03"
    assert aml.eisa_id("PNP0303") == b"\x0c\x41\xd0\x03\x03"


def test_uuid_swaps_the_first_three_fields() -> None:
    assert aml.to_uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")[-16:].hex() == "5b4ddb33f71f1c4096577441c03dd766"


def test_method_flags() -> None:
    assert aml.method("_SRS", 1, serialized=True) == b"\x14\x06_SRS\x09"


def test_field_with_a_gap() -> None:
    encoded = aml.field("PIRQ", aml.Access.BYTE, [("PRQA", 8), ("", 32), ("PRQE", 8)])
    assert encoded == b"\x5b\x81\x12PIRQ\x01PRQA\x08\x00\x20PRQE\x08"


def test_resources() -> None:
    assert resources.io(0x3F8, 8) == b"\x47\x01\xf8\x03\xf8\x03\x01\x08"
    assert resources.irq_no_flags(4) == b"\x22\x10\x00"
    assert resources.interrupt(5, 10) == b"\x89\x0a\x00\x09\x02\x05\x00\x00\x00\x0a\x00\x00\x00"
    assert resources.resource_template() == b"\x11\x04\x0a\x02\x79\x00"[:1] + b"\x05\x0a\x02\x79\x00"
