"""From the command line to the board: its configuration records, and the lines from its interrupt controllers."""

from collections.abc import Callable

from hw.machines.q35 import DebugExitConfig
from hw.timer.mc146818 import RtcClock, RtcConfig
from tcg.cli.options import OptionError, RunConfig
from tcg.runtime.layout import Interrupt


class CpuLines:
    """hw's CpuPort for one vCPU: interrupt lines become request bits."""

    def __init__(self) -> None:
        self.request: Callable[[int], None] = lambda bits: None
        self.withdraw: Callable[[int], None] = lambda bits: None

    def raise_intr(self) -> None:
        self.request(Interrupt.HARD)

    def lower_intr(self) -> None:
        self.withdraw(Interrupt.HARD)

    def raise_nmi(self) -> None:
        self.request(Interrupt.NMI)

    def raise_init(self) -> None:
        self.request(Interrupt.INIT)

    def raise_sipi(self, vector: int) -> None:
        self.request(Interrupt.SIPI)

    def raise_smi(self) -> None:
        self.request(Interrupt.SMI)


def debug_exits(config: RunConfig) -> tuple[DebugExitConfig, ...]:
    device = config.debug_exit
    return (DebugExitConfig(device.iobase, device.iosize),) if device else ()


def rtc(config: RunConfig) -> RtcConfig:
    """A date is in UTC, as QEMU has it; OptionError if it is none."""
    base: str | int = config.rtc_base
    if config.rtc_base[:4].isdigit():
        from datetime import UTC, datetime

        try:
            base = int(datetime.fromisoformat(config.rtc_base).replace(tzinfo=UTC).timestamp())
        except ValueError:
            raise OptionError(f"-rtc base={config.rtc_base}: no such date; give one like 2006-06-17T16:01:21") from None
    return RtcConfig(base=base, clock=RtcClock[config.rtc_clock.upper()])
