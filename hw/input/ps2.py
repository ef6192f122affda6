"""PS/2 keyboard and mouse as the i8042 sees them (IBM PS/2 technical reference, keyboard and mouse sections).

A device has an output queue; `changed` tells the controller that a byte is waiting. A byte from the host discards what
is left of the answer to the one before. Keys and movements come in through
`key` and `move`, from whatever user interface the board has (none in text mode).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

ACK, RESEND, ECHO, BAT_OK = 0xFA, 0xFE, 0xEE, 0xAA
QUEUE_SIZE = 256
KEYBOARD_QUEUE = 16


class Ps2Device:
    """What keyboard and mouse share: the queue and a command that waits for its parameter."""

    WIRING: tuple[str, ...] = ("changed",)
    STATISTICS: tuple[str, ...] = ()
    SAVED: tuple[str, ...] = ("answer", "command", "enabled", "queue")

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self.queue: deque[int] = deque()
        self.answer: deque[int] = deque()
        self.command: int | None = None
        self.enabled = False
        self.reset()

    def reset(self) -> None:
        self.queue.clear()
        self.answer.clear()
        self.command = None

    def put(self, data: Iterable[int]) -> None:
        """Answer the host."""
        self.answer.extend(data)
        self.changed()

    def report(self, data: Iterable[int]) -> None:
        """Tell the host of an event; the caller saw to the room."""
        self.queue.extend(data)
        self.changed()

    @property
    def waiting(self) -> bool:
        return bool(self.answer or self.queue)

    def take(self) -> int:
        """The controller reads the next byte, answers before events; 0 when there is none."""
        if self.answer:
            return self.answer.popleft()
        return self.queue.popleft() if self.queue else 0

    def write(self, value: int) -> None:
        """A byte from the host."""
        self.answer.clear()
        command = self.command
        if command is None:
            self.execute(value)
        else:
            self.command = None
            self.parameter(command, value)

    def execute(self, value: int) -> None:
        raise NotImplementedError

    def parameter(self, command: int, value: int) -> None:
        raise NotImplementedError


class Ps2Keyboard(Ps2Device):
    """An MF2 keyboard, scan code sets 1 to 3; sends set 2."""

    SAVED = (*Ps2Device.SAVED, "leds", "rate", "scan_set")

    def reset(self) -> None:
        super().reset()
        self.enabled = True
        self.leds = 0
        self.rate = 0x2B
        self.scan_set = 2

    def key(self, code: bytes) -> None:
        """A key's make or break code of set 2; dropped while scanning is off or the buffer is full."""
        if self.enabled and len(self.queue) + len(code) <= KEYBOARD_QUEUE:
            self.report(code)

    def execute(self, value: int) -> None:
        match value:
            case 0xED | 0xF0 | 0xF3:  # LEDs, scan code set, typematic rate
                self.command = value
                self.put((ACK,))
            case 0xEE:
                self.put((ECHO,))
            case 0xF2:
                self.put((ACK, 0xAB, 0x83))
            case 0xF4:
                self.enabled = True
                self.put((ACK,))
            case 0xF5:
                self.reset()
                self.enabled = False
                self.put((ACK,))
            case 0xF6:
                self.reset()
                self.put((ACK,))
            case 0xF7 | 0xF8 | 0xF9 | 0xFA:  # all keys' modes, for set 3
                self.put((ACK,))
            case 0xFF:
                self.reset()
                self.put((ACK, BAT_OK))
            case _:
                self.put((RESEND,))

    def parameter(self, command: int, value: int) -> None:
        if command == 0xED:
            self.leds = value
        elif command == 0xF3:
            self.rate = value
        elif value == 0:
            self.put((ACK, self.scan_set))
            return
        elif value <= 3:
            self.scan_set = value
        else:
            self.put((RESEND,))
            return
        self.put((ACK,))


class Ps2Mouse(Ps2Device):
    """A mouse with three buttons, a wheel (IntelliMouse) and two more buttons (Explorer) for who knocks."""

    SAVED = (*Ps2Device.SAVED, "buttons", "detect", "id", "rate", "remote", "resolution", "scaling", "wrap")

    def reset(self) -> None:
        super().reset()
        self.enabled = False
        self.remote = False
        self.wrap = False
        self.scaling = False
        self.rate = 100
        self.resolution = 2
        self.id = 0
        self.detect = 0
        self.buttons = 0

    def move(self, dx: int, dy: int, dz: int, buttons: int) -> None:
        """A movement (y upwards) and the buttons' state: bit 0 left, 1 right, 2 middle, 3 and 4 the side buttons."""
        self.buttons = buttons & 0x1F
        if self.enabled and not self.remote and len(self.queue) <= QUEUE_SIZE - 4:
            self.report(self._packet(dx, dy, dz))

    def _packet(self, dx: int, dy: int, dz: int) -> list[int]:
        dx, dy, dz = (max(-limit, min(limit - 1, d)) for d, limit in ((dx, 256), (dy, 256), (dz, 8)))
        packet = [0x08 | (dx < 0) << 4 | (dy < 0) << 5 | self.buttons & 7, dx & 0xFF, dy & 0xFF]
        if self.id == 3:
            packet.append(dz & 0xFF)
        elif self.id == 4:
            packet.append(dz & 0x0F | (self.buttons & 0x18) << 1)
        return packet

    def execute(self, value: int) -> None:
        if self.wrap and value not in (0xEC, 0xFF):
            self.put((value,))
            return
        match value:
            case 0xE6 | 0xE7:
                self.scaling = value == 0xE7
            case 0xE8 | 0xF3:
                self.command = value
            case 0xE9:
                status = self.remote << 6 | self.enabled << 5 | self.scaling << 4
                status |= (self.buttons & 1) << 2 | (self.buttons & 4) >> 1 | (self.buttons & 2) >> 1
                self.put((ACK, status, self.resolution, self.rate))
                return
            case 0xEA | 0xF0:
                self.remote = value == 0xF0
            case 0xEB:
                self.put((ACK, *self._packet(0, 0, 0)))
                return
            case 0xEC | 0xEE:
                self.wrap = value == 0xEE
            case 0xF2:
                self.put((ACK, self.id))
                return
            case 0xF4 | 0xF5:
                self.enabled = value == 0xF4
            case 0xF6:
                kept = self.id
                self.reset()
                self.id = kept
            case 0xFF:
                self.reset()
                self.put((ACK, BAT_OK, self.id))
                return
            case _:
                self.put((RESEND,))
                return
        self.put((ACK,))

    def parameter(self, command: int, value: int) -> None:
        if command == 0xE8:
            self.resolution = value & 3
        else:
            self.rate = value
            # The knocks: rates 200, 100, 80 ask for the wheel, 200, 200, 80 for the side buttons.
            if self.detect == 1 and value in (100, 200):
                self.detect = 2 if value == 100 else 3
            elif self.detect in (2, 3) and value == 80:
                self.id = 3 if self.detect == 2 else 4
                self.detect = 0
            else:
                self.detect = int(value == 200)
        self.put((ACK,))
