"""Saving and restoring a device from its declared groups (`device.Savable`).

A saved value is plain data (int, bool, bytes, str, list, dict, None) or an object with `save() -> plain` and
`load(plain)`, such as a register file or a timer.
"""

from __future__ import annotations

import copy
from typing import Any

from hw.core.device import Savable, Saved


def save(device: Savable) -> Saved:
    """The device's guest-visible state as plain data that shares nothing with the device."""
    return {name: _save_value(getattr(device, name)) for name in device.SAVED}


def load(device: Savable, state: Saved) -> None:
    """Put a state that `save` returned back. The wiring stays; a missing name is an error in the state."""
    for name in device.SAVED:
        value = getattr(device, name)
        _load_value(device, name, value, state[name])


def statistics(device: Savable) -> dict[str, Any]:
    """The device's counters by name."""
    return {name: copy.copy(getattr(device, name)) for name in device.STATISTICS}


def _save_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_save_value(item) for item in value]
    if hasattr(value, "SAVED"):
        return save(value)
    if hasattr(value, "save"):
        return value.save()
    return copy.deepcopy(value)


def _load_value(owner: object, name: str, value: Any, saved: Any) -> None:
    if isinstance(value, list) and value and (hasattr(value[0], "load") or hasattr(value[0], "SAVED")):
        for item, plain in zip(value, saved, strict=True):
            _load_object(item, plain)
    elif hasattr(value, "load") or hasattr(value, "SAVED"):
        _load_object(value, saved)
    else:
        setattr(owner, name, copy.deepcopy(saved))


def _load_object(value: Any, saved: Any) -> None:
    if hasattr(value, "SAVED"):
        load(value, saved)
    else:
        value.load(saved)
