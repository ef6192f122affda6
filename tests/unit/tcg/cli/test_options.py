"""QEMU's command line: meaning of each option, and what a wrong one is told."""

from pathlib import Path

import pytest

from tcg.cli.options import MIB, DebugExit, OptionError, RunConfig, help_text, parse


def config(*words: str) -> RunConfig:
    result = parse(words)
    assert isinstance(result, RunConfig)
    return result


def test_the_usual_line() -> None:
    got = config(
        "-M", "q35", "-m", "512", "-kernel", "vmlinuz", "-initrd", "i.gz", "-append", "console=ttyS0", "-nographic"
    )
    assert (got.ram_size, got.kernel, got.initrd, got.append, got.nographic) == (
        512 * MIB, Path("vmlinuz"), Path("i.gz"), "console=ttyS0", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"), [("1G", 1 << 30), ("256M", 256 * MIB), ("64", 64 * MIB), ("size=2G", 2 << 30), ("0.5G", 1 << 29)]
)
def test_memory_sizes(text: str, size: int) -> None:
    assert config("-m", text).ram_size == size


def test_two_dashes_and_debug_exit() -> None:
    assert config("--device", "isa-debug-exit,iobase=0xf4,iosize=4").debug_exit == DebugExit(0xF4, 4)


def test_dfilter_forms() -> None:
    assert config("-dfilter", "0x100..0x1ff,0x1000+16,0x2000-1").dfilter == (
        (0x100, 0x200),
        (0x1000, 0x1010),
        (0x2000, 0x2001),
    )


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("-kernal", "x"), ("-kernal", "-kernel")),
        (("-m", "0"), ("-m 0", "RAM")),
        (("-m", "lots"), ("-m", "lots")),
        (("-M", "pc"), ("'pc'", "q35")),
        (("-smp", "2"), ("-smp", "2")),
        (("-serial", "stdout"), ("-serial stdout", "stdio")),
        (("-d", "in_asn"), ("in_asn", "in_asm")),
        (("-device", "e1000"), ("e1000", "isa-debug-exit")),
        (("-accel", "kvm"), ("kvm", "tcg")),
        (("-kernel",), ("-kernel", "argument")),
        (("disk.img",), ("disk.img", "-kernel")),
    ],
)
def test_refusals_name_the_thing_and_the_way_out(words: tuple[str, ...], names: tuple[str, ...]) -> None:
    with pytest.raises(OptionError) as refused:
        parse(words)
    for name in names:
        assert name in str(refused.value)


def test_information() -> None:
    assert parse(["-version"]) == "version"
    assert parse(["-d", "help"]) == "log-help"
    assert "-kernel file" in help_text("tessera run")
