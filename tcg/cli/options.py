"""QEMU's command line, parsed into one frozen `RunConfig`.

Every option is one row of OPTIONS with QEMU's spelling and meaning; one that we do not have is refused by name with the
nearest that we have. Options may be written with one dash or two, as QEMU accepts them.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

MIB = 1 << 20


class OptionError(Exception):
    """A command line that cannot be used; the message names the option and the way out."""


@dataclass(frozen=True, slots=True)
class DebugExit:
    """-device isa-debug-exit (QEMU's defaults)."""

    iobase: int = 0x501
    iosize: int = 2


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All that a machine run depends on. Sizes in bytes."""

    machine: str = "q35"
    cpu: str = "qemu64"
    cpu_flags: tuple[str, ...] = ()
    ram_size: int = 128 * MIB
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    serial: tuple[str, ...] = ()
    nographic: bool = False
    display: str = ""
    reboot: bool = True
    shutdown: bool = True
    tb_size: int = 128 * MIB
    hot_blocks: bool = True
    log_items: frozenset[str] = frozenset()
    log_file: Path | None = None
    dfilter: tuple[tuple[int, int], ...] = ()
    debug_exit: DebugExit | None = None
    rtc_base: str = "utc"
    rtc_clock: str = "host"
    nodefaults: bool = False
    demo: bool = False
    stats: bool = False
    name: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Option:
    """One row: name without dashes, metavar ("" = takes no argument), help line, how it changes the config."""

    name: str
    metavar: str
    help: str
    apply: Callable[[RunConfig, str], RunConfig]


LOG_ITEMS = {
    "in_asm": "show target assembly code for each compiled TB",
    "op": "show micro ops for each compiled TB",
    "op_opt": "show micro ops after optimization",
    "out_asm": "show generated host assembly code for each compiled TB",
    "int": "show interrupts/exceptions in short format",
    "exec": "show trace before each executed TB (lots of logs)",
    "cpu": "show CPU registers before entering a TB (lots of logs)",
    "unimp": "log unimplemented functionality",
    "guest_errors": "log when the guest does something invalid",
    "nochain": 'do not chain compiled TBs so that "exec" and "cpu" show complete traces',
}


def parse_size(option: str, text: str, default_unit: int) -> int:
    """A QEMU size: a number with an optional suffix b, k, M, G, T (powers of 1024)."""
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    unit = default_unit
    digits = text
    if text and text[-1].lower() in units:
        unit, digits = units[text[-1].lower()], text[:-1]
    try:
        value = float(digits) if "." in digits else int(digits, 0)
    except ValueError:
        raise OptionError(
            f"-{option}: '{text}' is not a size: give a number with an optional suffix k, M or G"
        ) from None
    if value < 0:
        raise OptionError(f"-{option}: a size cannot be negative, got '{text}'")
    return int(value * unit)


def parse_suboptions(option: str, text: str, known: Sequence[str], implied: str = "") -> dict[str, str]:
    """`a,b=c,d=e`: the first bare word is `implied`'s value; other bare words mean "on"."""
    result: dict[str, str] = {}
    for position, part in enumerate(p for p in text.split(",") if p):
        key, equals, value = part.partition("=")
        if not equals:
            if position == 0 and implied:
                key, value = implied, part
            else:
                value = "on"
        if key not in known:
            hint = difflib.get_close_matches(key, known, 1, 0.0)
            raise OptionError(
                f"-{option}: unknown property '{key}'" + (f"; the nearest that we have is '{hint[0]}'" if hint else "")
            )
        result[key] = value
    return result


def _machine(config: RunConfig, text: str) -> RunConfig:
    properties = parse_suboptions(
        "machine", text, ("type", "accel", "smbus", "sata", "vmport", "graphics", "hpet", "usb"), "type"
    )
    name = properties.get("type", config.machine)
    if name not in ("q35", "pc-q35-7.2"):
        raise OptionError(f"-machine: unsupported machine type '{name}'; the machine that we have is 'q35'")
    if "accel" in properties and not properties["accel"].startswith("tcg"):
        raise OptionError(f"-machine accel={properties['accel']}: the accelerator that we have is 'tcg'")
    extra = {k: v for k, v in properties.items() if k not in ("type", "accel")}
    return replace(config, machine="q35", extra=config.extra | extra)


def _cpu(config: RunConfig, text: str) -> RunConfig:
    model, *flags = text.split(",")
    return replace(config, cpu=model, cpu_flags=tuple(flags))


def _smp(config: RunConfig, text: str) -> RunConfig:
    properties = parse_suboptions("smp", text, ("cpus", "sockets", "cores", "threads", "maxcpus", "dies"), "cpus")
    for key, value in properties.items():
        if value != "1":
            raise OptionError(f"-smp {key}={value}: this version runs one vCPU; use -smp 1")
    return config


def _memory(config: RunConfig, text: str) -> RunConfig:
    size = parse_size("m", parse_suboptions("m", text, ("size",), "size").get("size", ""), MIB)
    if size < MIB:
        raise OptionError(f"-m {text}: a machine needs RAM; give at least 1M (a Linux kernel needs about 128M)")
    if size % 4096:
        size = (size + 8191) // 8192 * 8192
    return replace(config, ram_size=size)


def _accel(config: RunConfig, text: str) -> RunConfig:
    properties = parse_suboptions(
        "accel", text, ("accel", "tb-size", "thread", "one-insn-per-tb", "hot-blocks"), "accel"
    )
    if properties.get("accel", "tcg") != "tcg":
        raise OptionError(f"-accel {properties['accel']}: the accelerator that we have is 'tcg'")
    if properties.get("hot-blocks", "on") not in ("on", "off"):
        raise OptionError("-accel tcg,hot-blocks: give on or off")
    config = replace(config, hot_blocks=properties.get("hot-blocks", "on" if config.hot_blocks else "off") == "on")
    if "tb-size" in properties:
        size = parse_size("accel tb-size", properties["tb-size"], 1) * MIB
        if not MIB <= size <= 1 << 30:
            raise OptionError(f"-accel tcg,tb-size={properties['tb-size']}: give 1 to 1024 (MiB of translated code)")
        config = replace(config, tb_size=size)
    return config


def _serial(config: RunConfig, text: str) -> RunConfig:
    kinds = ("stdio", "mon:stdio", "file:", "pty", "unix:", "null", "none")
    if not any(text == k or (k.endswith(":") and text.startswith(k) and text != k) for k in kinds):
        hint = difflib.get_close_matches(text, kinds, 1, 0.0)[0]
        raise OptionError(f"-serial {text}: no such character device; the nearest that we have is '{hint}'")
    return replace(config, serial=(*config.serial, text))


def _display(config: RunConfig, text: str) -> RunConfig:
    if text != "none":
        raise OptionError(f"-display {text}: the display that we have is 'none'")
    return replace(config, display=text)


def _only_none(option: str) -> Callable[[RunConfig, str], RunConfig]:
    def apply(config: RunConfig, text: str) -> RunConfig:
        if text != "none":
            raise OptionError(f"-{option} {text}: this machine has no such device yet; '-{option} none' is accepted")
        return config

    return apply


def _log(config: RunConfig, text: str) -> RunConfig:
    items = set(config.log_items)
    for item in filter(None, text.split(",")):
        if item not in LOG_ITEMS:
            hint = difflib.get_close_matches(item, LOG_ITEMS, 1, 0.0)[0]
            raise OptionError(
                f"-d {item}: no such log item; the nearest that we have is '{hint}' ('-d help' lists them)"
            )
        items.add(item)
    return replace(config, log_items=frozenset(items))


def _dfilter(config: RunConfig, text: str) -> RunConfig:
    ranges = []
    for part in text.split(","):
        for separator in ("..", "+", "-"):
            low, found, high = part.partition(separator)
            if found:
                break
        try:
            start, amount = int(low, 0), int(high, 0)
        except ValueError:
            raise OptionError(f"-dfilter {part}: give START..END, START+SIZE or START-SIZE") from None
        match separator:
            case "..":
                ranges.append((start, amount + 1))
            case "+":
                ranges.append((start, start + amount))
            case _:
                ranges.append((start - amount + 1, start + 1))
    return replace(config, dfilter=(*config.dfilter, *ranges))


def _device(config: RunConfig, text: str) -> RunConfig:
    driver = text.split(",")[0]
    if driver != "isa-debug-exit":
        raise OptionError(f"-device {driver}: no such device; the one that we have is 'isa-debug-exit'")
    properties = parse_suboptions("device", text, ("driver", "iobase", "iosize", "id"), "driver")
    try:
        device = DebugExit(int(properties.get("iobase", "0x501"), 0), int(properties.get("iosize", "2"), 0))
    except ValueError:
        raise OptionError(f"-device {text}: iobase and iosize are numbers, such as iobase=0xf4,iosize=4") from None
    return replace(config, debug_exit=device)


def _rtc(config: RunConfig, text: str) -> RunConfig:
    properties = parse_suboptions("rtc", text, ("base", "clock", "driftfix"))
    clock = properties.get("clock", config.rtc_clock)
    if clock not in ("host", "vm", "rt"):
        raise OptionError(f"-rtc clock={clock}: give host, rt or vm")
    base = properties.get("base", config.rtc_base)
    if base not in ("utc", "localtime") and not base[:4].isdigit():
        raise OptionError(f"-rtc base={base}: give utc, localtime or a date such as 2006-06-17T16:01:21")
    return replace(config, rtc_base=base, rtc_clock=clock)


def _flag(**changes: object) -> Callable[[RunConfig, str], RunConfig]:
    return lambda config, _text: replace(config, **changes)  # type: ignore[arg-type]


def _path(name: str) -> Callable[[RunConfig, str], RunConfig]:
    return lambda config, text: replace(config, **{name: Path(text)})  # type: ignore[arg-type]


_ROWS = (
    Option("M", "type[,prop=value]", "the machine: q35", _machine),
    Option("machine", "type[,prop=value]", "the same", _machine),
    Option("cpu", "model[,+feat][,-feat]", "the CPU model: qemu64 (default), max", _cpu),
    Option("smp", "n", "number of vCPUs: 1", _smp),
    Option("m", "size[M|G]", "guest RAM (default 128M)", _memory),
    Option("kernel", "file", "a bzImage, PVH ELF or multiboot kernel", _path("kernel")),
    Option("initrd", "file", "initial RAM disk", _path("initrd")),
    Option("append", "cmdline", "the kernel's command line", lambda c, t: replace(c, append=t)),
    Option("serial", "dev", "stdio, mon:stdio, file:PATH, pty, unix:PATH[,server][,nowait], null, none", _serial),
    Option("nographic", "", "no display; serial port and monitor on stdio", _flag(nographic=True)),
    Option("display", "none", "no display", _display),
    Option("no-reboot", "", "exit instead of rebooting", _flag(reboot=False)),
    Option("no-shutdown", "", "stop instead of exiting at shutdown", _flag(shutdown=False)),
    Option(
        "accel",
        "tcg[,tb-size=n][,hot-blocks=on|off]",
        "the accelerator; tb-size: MiB of translated code; hot-blocks=off: no whole blocks through LLVM",
        _accel,
    ),
    Option("d", "item1,...", "log items ('-d help' lists them)", _log),
    Option("D", "file", "log to a file instead of stderr", _path("log_file")),
    Option("dfilter", "range,..", "log only blocks in START..END, START+SIZE, START-SIZE", _dfilter),
    Option("device", "isa-debug-exit,...", "add a device", _device),
    Option("rtc", "[base=..][,clock=host|rt|vm]", "the real-time clock's start and source", _rtc),
    Option("nodefaults", "", "no default devices", _flag(nodefaults=True)),
    Option("vga", "none", "no VGA", _only_none("vga")),
    Option("net", "none", "no network", _only_none("net")),
    Option("nic", "none", "no network", _only_none("nic")),
    Option("monitor", "none", "no separate monitor", _only_none("monitor")),
    Option("parallel", "none", "no parallel port", _only_none("parallel")),
    Option("name", "name", "the guest's name", lambda c, t: replace(c, name=t)),
    Option("no-user-config", "", "accepted: there is no user configuration", lambda c, _t: c),
    Option("demo", "", "boot the embedded demo guest instead of a kernel (ours)", _flag(demo=True)),
    Option("stats", "", "print translator statistics at exit (ours)", _flag(stats=True)),
)
OPTIONS = {row.name: row for row in _ROWS}
_INFORMATION = {"h": "help", "help": "help", "version": "version"}


def parse(arguments: Sequence[str]) -> RunConfig | str:
    """The config, or the name of an information request: "help", "version", "log-help", "cpu-help", "machine-help"."""
    config = RunConfig()
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            raise OptionError(f"'{word}': drive images are not supported yet; boot a kernel with -kernel")
        name = word.lstrip("-")
        if name in _INFORMATION:
            return _INFORMATION[name]
        row = OPTIONS.get(name)
        if row is None:
            nearest = difflib.get_close_matches(name, OPTIONS, 1, 0.0)
            raise OptionError(f"-{name}: no such option; the nearest that we have is '-{nearest[0]}'")
        argument = ""
        if row.metavar:
            if not words:
                raise OptionError(f"-{name}: needs an argument: {row.metavar}")
            argument = words.pop(0)
            if argument in ("help", "?") and name in ("d", "cpu", "M", "machine"):
                return {"d": "log-help", "cpu": "cpu-help"}.get(name, "machine-help")
        config = row.apply(config, argument)
    return config


def help_text(program: str) -> str:
    """The usage text: one line an option."""
    rows = [(f"-{o.name} {o.metavar}".strip(), o.help) for o in _ROWS]
    width = max(len(r[0]) for r in rows)
    return "\n".join([f"usage: {program} [options]", "", *(f"{a:<{width}}  {b}" for a, b in rows)])
