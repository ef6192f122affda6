"""8042 keyboard controller, PS/2 style, and PORT92 (IBM PS/2 technical reference; ICH9 data sheet 13.7.3).

Ports 0x60 (data) and 0x64 (command, status). The keyboard interrupts on IRQ 1, the mouse on IRQ 12. `reset_cpu` is the
controller's pulse on the CPU's reset line, which on a PC resets the machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntFlag

from hw.core.irq import IrqLine
from hw.core.log import GuestLog
from hw.input.ps2 import Ps2Keyboard, Ps2Mouse


class Status(IntFlag):
    OBF = 0x01
    IBF = 0x02
    SYS = 0x04
    CMD = 0x08
    UNLOCKED = 0x10
    AUX = 0x20
    TIMEOUT = 0x40
    PARITY = 0x80


class Mode(IntFlag):
    """The controller command byte."""

    KBD_INT = 0x01
    MOUSE_INT = 0x02
    SYS = 0x04
    NO_KEYLOCK = 0x08
    KBD_DISABLE = 0x10
    MOUSE_DISABLE = 0x20
    TRANSLATE = 0x40


OUT_RESET, OUT_A20, OUT_OBF, OUT_AUX_OBF = 0x01, 0x02, 0x10, 0x20
OUT_ONES = 0xCC  # lines that nothing drives

# Scan code set 2 to set 1, by the controller (IBM PS/2 technical reference, keyboard controller, translation table).
TRANSLATION = (
    bytes.fromhex(
        "ff43413f3d3b3c58644442403e0f2959"
        "65382a701d10025a66712c1f1e11035b"
        "672e2d201205045c68392f211413065d"
        "693130232215075e6a7232241608095f"
        "6b332517180b0a606c34352627190c61"
        "6d7328741a0d626e3a361c1b752b6376"
        "55567778797a0e7b7c4f7d4b477e7f6f"
        "5253504c4d480145574e514a37494654"
    )
    + bytes((0x80, 0x81, 0x82, 0x41, 0x54))
    + bytes(range(0x85, 0x100))
)
assert len(TRANSLATION) == 256
BREAK_PREFIX = 0xF0


class I8042:
    """The controller, one byte of output buffer, and the two devices behind it."""

    WIRING = ("_log", "keyboard_irq", "mouse_irq", "reset_cpu", "set_a20")
    STATISTICS = ()
    SAVED = (
        "_break_seen",
        "_replies",
        "command",
        "data",
        "from_mouse",
        "full",
        "keyboard",
        "last_was_command",
        "mode",
        "mouse",
        "outport",
        "status_sys",
    )
    __slots__ = WIRING + STATISTICS + SAVED

    def __init__(self, log: GuestLog) -> None:
        self._log = log
        self.keyboard = Ps2Keyboard()
        self.mouse = Ps2Mouse()
        self.keyboard.changed = self.mouse.changed = self._fill
        self.keyboard_irq = IrqLine()
        self.mouse_irq = IrqLine()
        self.reset_cpu: Callable[[], None] = lambda: None
        self.set_a20: Callable[[bool], None] = lambda _: None
        self.reset()

    def reset(self) -> None:
        self.mode = int(Mode.KBD_INT | Mode.MOUSE_INT)
        self.status_sys = False
        self.outport = OUT_RESET | OUT_A20 | OUT_ONES
        self.command: int | None = None
        self.last_was_command = True
        self.data = 0
        self.full = False
        self.from_mouse = False
        self._replies: deque[tuple[int, bool]] = deque()
        self._break_seen = False
        self.keyboard.reset()
        self.mouse.reset()
        self._drive()

    # -- output buffer

    def _reply(self, value: int, *, mouse: bool = False) -> None:
        """A byte from the controller itself."""
        if len(self._replies) < 16:
            self._replies.append((value, mouse))
        self._fill()

    def _fill(self) -> None:
        """Load the output buffer when it is empty: controller first, then keyboard, then mouse."""
        while not self.full:
            if self._replies:
                self.data, self.from_mouse = self._replies.popleft()
            elif self.keyboard.waiting and not self.mode & Mode.KBD_DISABLE:
                value = self.keyboard.take()
                if self.mode & Mode.TRANSLATE:
                    if value == BREAK_PREFIX:
                        self._break_seen = True
                        continue
                    value = TRANSLATION[value] | (0x80 if self._break_seen else 0)
                    self._break_seen = False
                self.data, self.from_mouse = value, False
            elif self.mouse.waiting and not self.mode & Mode.MOUSE_DISABLE:
                self.data, self.from_mouse = self.mouse.take(), True
            else:
                break
            self.full = True
        self._drive()

    def _drive(self) -> None:
        keyboard = self.full and not self.from_mouse
        mouse = self.full and self.from_mouse
        self.keyboard_irq.set(bool(keyboard and self.mode & Mode.KBD_INT))
        self.mouse_irq.set(bool(mouse and self.mode & Mode.MOUSE_INT))

    # -- ports: offset 0 is 0x60, offset 4 is 0x64

    def pio_read(self, offset: int, size: int) -> int:
        if offset == 0:
            value = self.data
            if self.full:
                self.full = False
                self._drive()
                self._fill()
            return value
        status = Status.UNLOCKED | (Status.OBF if self.full else 0) | (Status.SYS if self.status_sys else 0)
        if self.full and self.from_mouse:
            status |= Status.AUX
        if self.last_was_command:
            status |= Status.CMD
        return int(status)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        if offset:
            self.last_was_command = True
            self._execute(value)
        else:
            self.last_was_command = False
            self._write_data(value)

    def _execute(self, value: int) -> None:
        self.command = None
        match value:
            case 0x20:
                self._reply(self.mode)
            case 0x60 | 0xD1 | 0xD2 | 0xD3 | 0xD4:
                self.command = value
            case 0xA7 | 0xA8:
                self._set_mode(self.mode | 0x20 if value == 0xA7 else self.mode & ~0x20)
            case 0xA9 | 0xAB:  # interface tests: no fault
                self._reply(0x00)
            case 0xAA:
                # QUIRK: set until reset, as on QEMU; on the real part bit 2 of the command byte drives it too.
                self.status_sys = True
                self._reply(0x55)
            case 0xAD | 0xAE:
                self._set_mode(self.mode | 0x10 if value == 0xAD else self.mode & ~0x10)
            case 0xC0:
                self._reply(0x80)
            case 0xD0:
                full = self.full
                aux = OUT_AUX_OBF if self.from_mouse else OUT_OBF
                self._reply(self.outport | (aux if full else 0))
            case 0xDD | 0xDF:
                self._write_outport(self.outport & ~OUT_A20 if value == 0xDD else self.outport | OUT_A20)
            case _ if value >= 0xF0:
                if not value & 1:
                    self.reset_cpu()
            case _:
                self._log.unimp("i8042", f"command {value:#04x}")

    def _write_data(self, value: int) -> None:
        command, self.command = self.command, None
        match command:
            case None:
                self._set_mode(self.mode & ~Mode.KBD_DISABLE)  # data for the keyboard turns its clock on
                self.keyboard.write(value)
            case 0x60:
                self._set_mode(value)
            case 0xD1:
                self._write_outport(value)
            case 0xD2:
                self._reply(value)
            case 0xD3:
                self._reply(value, mouse=True)
            case _:
                self._set_mode(self.mode & ~Mode.MOUSE_DISABLE)
                self.mouse.write(value)

    def _set_mode(self, value: int) -> None:
        self.mode = int(value) & 0xFF
        self._fill()

    def _write_outport(self, value: int) -> None:
        self.outport = value & ~(OUT_OBF | OUT_AUX_OBF)
        self.set_a20(bool(value & OUT_A20))
        if not value & OUT_RESET:
            self.reset_cpu()


class I8042Port:
    """One of the controller's two ports; they are not neighbours."""

    WIRING = ("_controller", "_offset")
    STATISTICS = ()
    SAVED = ()
    __slots__ = WIRING

    def __init__(self, controller: I8042, offset: int) -> None:
        self._controller = controller
        self._offset = offset

    def pio_read(self, offset: int, size: int) -> int:
        return self._controller.pio_read(self._offset, size)

    def pio_write(self, offset: int, size: int, value: int) -> None:
        self._controller.pio_write(self._offset, size, value)


class Port92:
    """PORT92: INIT_NOW (bit 0) and ALT_A20_GATE (bit 1)."""

    WIRING = ("init_cpu", "set_a20")
    STATISTICS = ()
    SAVED = ("value",)
    __slots__ = WIRING + SAVED

    def __init__(self) -> None:
        self.init_cpu: Callable[[], None] = lambda: None
        self.set_a20: Callable[[bool], None] = lambda _: None
        self.value = 0

    def reset(self) -> None:
        self.value = 0

    def pio_read(self, offset: int, size: int) -> int:
        return self.value

    def pio_write(self, offset: int, size: int, value: int) -> None:
        old, self.value = self.value, value & ~1 & 0xFF
        if (old ^ value) & 2:
            self.set_a20(bool(value & 2))
        if value & 1 and not old & 1:
            self.init_cpu()
