"""The DSDT: the namespace of a q35 board (ACPI 6.4, section 5.2.11.1).

Device names, identifiers and interrupt routing are those of QEMU 7.2's q35 where a guest can see them. Only what the
machine has is described: no hot-plug registers, no S3 or S4.
"""

from collections.abc import Iterable

from hw.firmware.acpi.aml import (
    Access,
    Region,
    Term,
    and_,
    arg,
    call,
    create_dword_field,
    device,
    eisa_id,
    else_,
    equal,
    field,
    if_,
    integer,
    local,
    method,
    name,
    not_equal,
    operation_region,
    or_,
    package,
    ref,
    return_,
    scope,
    store,
    string,
    to_uuid,
)
from hw.firmware.acpi.config import (
    ECAM_BASE,
    ECAM_SIZE,
    FW_CFG_BASE,
    FW_CFG_SIZE,
    GPE0,
    GPE0_SIZE,
    HPET_BASE,
    HPET_SIZE,
    PCI_HOLE64_SIZE,
    PCI_MEMORY_LAST,
    PIRQ_IRQS,
    PM_BASE,
    PM_SIZE,
    RCRB_BASE,
    RCRB_SIZE,
    SERIAL_PORTS,
    AcpiConfig,
)
from hw.firmware.acpi.resources import (
    dword_memory,
    interrupt,
    io,
    irq_no_flags,
    memory32_fixed,
    qword_memory,
    resource_template,
    word_bus_number,
    word_io,
)

PIRQS = "ABCDEFGH"
GSI_BASE = 16
"""PIRQ A to H are wired to I/O APIC inputs 16 to 23."""
PRESENT = 0x0F
PRESENT_HIDDEN = 0x0B
"""Present, enabled, functioning, not shown in a user interface."""
GIB = 1 << 30


def dsdt_body(config: AcpiConfig) -> bytes:
    """The definition block without its table header."""
    return b"".join(
        (
            scope("\\_SB", *_processors(config.cpu_count), _pci_root(config), _ecam(), _motherboard()),
            _interrupt_model(),
            scope("\\_SB", *_pirq_helpers(), *map(_pirq_link, range(8)), *map(_gsi_link, range(8))),
            scope("\\_SB", *_hpet(config)),
            name("\\_S5", package(integer(0), integer(0), integer(0), integer(0))),
        )
    )


def _processors(count: int) -> Iterable[Term]:
    """The processors; _UID is the processor id in the MADT."""
    nodes = (
        device(f"C{index:03X}", name("_HID", string("ACPI0007")), name("_UID", integer(index)))
        for index in range(count)
    )
    yield device("CPUS", name("_HID", string("ACPI0010")), name("_CID", eisa_id("PNP0A05")), *nodes)


# --- the root complex


def _pci_root(config: AcpiConfig) -> Term:
    return device(
        "PCI0",
        name("_HID", eisa_id("PNP0A08")),
        name("_CID", eisa_id("PNP0A03")),
        name("_UID", integer(0)),
        _osc(),
        name("_CRS", _pci_windows(config)),
        device("S00", name("_ADR", integer(0))),
        _lpc(config),
        *(
            device(f"S{slot * 8 + function:02X}", name("_ADR", integer(slot << 16 | function)))
            for slot, function in config.pci_functions
        ),
        name("PRTP", _routing_table("LNK")),
        name("PRTA", _routing_table("GSI")),
        method("_PRT", 0, if_(equal(ref("\\PICF"), integer(0)), return_(ref("PRTP"))), return_(ref("PRTA"))),
        device(
            "GPE0",
            name("_HID", string("PNP0A06")),
            name("_UID", string("GPE0 resources")),
            name("_STA", integer(PRESENT_HIDDEN)),
            name("_CRS", resource_template(io(GPE0, GPE0_SIZE))),
        ),
        *_fw_cfg(config),
    )


def _osc() -> Term:
    """Operating system capabilities (PCI firmware specification 3.2, section 4.5.1).

    Grants SHPC hot-plug, PME, AER and the capability structure (bits 1 to 4); native PCI Express hot-plug and LTR are
    withheld. Status bits in the first dword: 2 unknown UUID, 3 unknown revision, 4 capabilities masked.
    """
    return method(
        "_OSC",
        4,
        create_dword_field(arg(3), 0, "CDW1"),
        if_(
            equal(arg(0), to_uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
            create_dword_field(arg(3), 8, "CDW3"),
            and_(ref("CDW3"), integer(0x1E), local(0)),
            if_(not_equal(arg(1), integer(1)), or_(ref("CDW1"), integer(0x08), ref("CDW1"))),
            if_(not_equal(ref("CDW3"), local(0)), or_(ref("CDW1"), integer(0x10), ref("CDW1"))),
            store(local(0), ref("CDW3")),
        ),
        else_(or_(ref("CDW1"), integer(0x04), ref("CDW1"))),
        return_(arg(3)),
        serialized=True,
    )


def _pci_windows(config: AcpiConfig) -> Term:
    """What bus 0 can be given: the space between RAM and the ECAM, above the ECAM, and 32 GiB above all RAM."""
    window64 = max(4 * GIB, -(-(4 * GIB + config.high_size) // GIB) * GIB)
    return resource_template(
        word_bus_number(0, 0xFF),
        io(0xCF8, 8),
        word_io(0, 0xCF7),
        word_io(0xD00, 0xFFFF),
        dword_memory(0xA0000, 0xBFFFF, cacheable=True),
        *([dword_memory(config.low_size, ECAM_BASE - 1)] if config.low_size < ECAM_BASE else []),
        dword_memory(ECAM_BASE + ECAM_SIZE, PCI_MEMORY_LAST),
        qword_memory(window64, window64 + PCI_HOLE64_SIZE - 1),
    )


def _routing_table(links: str) -> Term:
    """Interrupt pins of devices 0 to 31 to link devices.

    Devices 0 to 24 and the legacy bridge 30 swizzle over PIRQ E to H; 25 to 29 and 31, the chip set's own functions,
    have pin A on PIRQ A and so on (as the ICH9's Dxx_IR registers come out of reset).
    """
    rows = []
    for slot in range(32):
        for pin in range(4):
            if slot < 25 or slot == 30:
                pirq = PIRQS[4 + ((0 if slot == 30 else slot) + pin) % 4]
            else:
                pirq = PIRQS[pin]
            rows.append(package(integer(slot << 16 | 0xFFFF), integer(pin), ref(f"\\_SB.{links}{pirq}"), integer(0)))
    return package(*rows)


# --- interrupt routing


def _interrupt_model() -> Term:
    """The operating system tells with \\_PIC whether it uses the 8259s (0) or the I/O APIC (1)."""
    return name("\\PICF", integer(0)) + method("\\_PIC", 1, store(arg(0), ref("\\PICF")))


def _pirq_helpers() -> Iterable[Term]:
    """IQST and IQCR: status and current resources of a link from its routing register (bit 7: not routed)."""
    yield method("IQST", 1, if_(and_(arg(0), integer(0x80)), return_(integer(0x09))), return_(integer(PRESENT_HIDDEN)))
    yield name("PRR0", resource_template(interrupt(0)))
    yield method(
        "IQCR",
        1,
        create_dword_field(ref("PRR0"), 5, "PRRI"),
        and_(arg(0), integer(0x0F), ref("PRRI")),
        return_(ref("PRR0")),
        serialized=True,
    )


def _pirq_link(index: int) -> Term:
    """The link device of one PIRQ when the 8259s are in use; its register is in the LPC bridge."""
    pirq = PIRQS[index]
    register = f"\\_SB.PCI0.SF8.PRQ{pirq}"
    return device(
        f"LNK{pirq}",
        name("_HID", eisa_id("PNP0C0F")),
        name("_UID", integer(index)),
        name("_PRS", resource_template(interrupt(*PIRQ_IRQS))),
        method("_STA", 0, return_(call("\\_SB.IQST", ref(register)))),
        method("_DIS", 0, or_(ref(register), integer(0x80), ref(register))),
        method("_CRS", 0, return_(call("\\_SB.IQCR", ref(register)))),
        method("_SRS", 1, create_dword_field(arg(0), 5, "PRRI"), store(ref("PRRI"), ref(register)), serialized=True),
    )


def _gsi_link(index: int) -> Term:
    """The link device of one PIRQ when the I/O APIC is in use: hard-wired."""
    wired = resource_template(interrupt(GSI_BASE + index))
    return device(
        f"GSI{PIRQS[index]}",
        name("_HID", eisa_id("PNP0C0F")),
        name("_UID", integer(GSI_BASE + index)),
        name("_PRS", wired),
        name("_CRS", wired),
        method("_DIS", 0),
        method("_SRS", 1),
    )


# --- the LPC bridge and the devices behind it


def _lpc(config: AcpiConfig) -> Term:
    """00:1f.0 with the PIRQ routing registers (ICH9 data sheet, sections 13.1.17 and 13.1.20) and the ISA devices."""
    pirqs = [(f"PRQ{pirq}", 8) for pirq in PIRQS]
    return device(
        "SF8",
        name("_ADR", integer(0x1F << 16)),
        operation_region("PIRQ", Region.PCI_CONFIG, 0x60, 0x0C),
        field("PIRQ", Access.BYTE, [*pirqs[:4], ("", 32), *pirqs[4:]]),
        _isa_device("KBD", "PNP0303", io(0x60, 1), io(0x64, 1), irq_no_flags(1), present=True),
        _isa_device("MOU", "PNP0F13", irq_no_flags(12), present=True),
        *(_serial_port(index) for index in config.serial_ports),
        _isa_device("RTC", "PNP0B00", io(0x70, 8), irq_no_flags(8)),
    )


def _isa_device(path: str, hid: str, *resources: bytes, present: bool = False) -> Term:
    status = (name("_STA", integer(PRESENT)),) if present else ()
    return device(path, name("_HID", eisa_id(hid)), *status, name("_CRS", resource_template(*resources)))


def _serial_port(index: int) -> Term:
    base, irq = SERIAL_PORTS[index]
    return device(
        f"COM{index + 1}",
        name("_HID", eisa_id("PNP0501")),
        name("_UID", integer(index + 1)),
        name("_STA", integer(PRESENT)),
        name("_CRS", resource_template(io(base, 8), irq_no_flags(irq))),
    )


# --- the rest of the board


def _ecam() -> Term:
    """The configuration space window; an operating system uses it only where the board reserves it."""
    window = dword_memory(ECAM_BASE, ECAM_BASE + ECAM_SIZE - 1, consumer=True)
    return device("DRAC", name("_HID", eisa_id("PNP0C01")), name("_CRS", resource_template(window)))


def _motherboard() -> Term:
    """The ranges of the chip set that no other device names."""
    ranges = (io(PM_BASE, PM_SIZE), memory32_fixed(RCRB_BASE, RCRB_SIZE, writable=True))
    return device(
        "MBRS", name("_HID", eisa_id("PNP0C02")), name("_UID", integer(1)), name("_CRS", resource_template(*ranges))
    )


def _hpet(config: AcpiConfig) -> Iterable[Term]:
    if config.hpet:
        registers = memory32_fixed(HPET_BASE, HPET_SIZE, writable=False)
        yield device(
            "HPET",
            name("_HID", eisa_id("PNP0103")),
            name("_UID", integer(0)),
            name("_CRS", resource_template(registers)),
        )


def _fw_cfg(config: AcpiConfig) -> Iterable[Term]:
    if config.fw_cfg:
        yield device(
            "FWCF",
            name("_HID", string("QEMU0002")),
            name("_STA", integer(PRESENT_HIDDEN)),
            name("_CRS", resource_template(io(FW_CFG_BASE, FW_CFG_SIZE))),
        )
