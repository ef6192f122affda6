"""What firmware leaves in guest memory, and the ways to start a kernel without any firmware running.

`load_kernel` (loader) recognises an image and starts it by its boot protocol; `install_q35_tables` (q35) writes the
ACPI and SMBIOS tables; `q35_memory_map` (e820) is the map that both describe. Everything here runs once, before the
vCPU starts, on the thread that builds the machine.
"""

from hw.firmware.cpu_entry import CpuEntry, DescriptorTable, Segment
from hw.firmware.e820 import E820Entry, E820Type, MemoryMap, q35_memory_map, split_ram
from hw.firmware.errors import BootError
from hw.firmware.loader import load_kernel
from hw.firmware.q35 import FirmwareConfig, fw_cfg_contents, install_q35_tables
from hw.firmware.ram import GuestRam, SplitRam

__all__ = [
    "BootError",
    "CpuEntry",
    "DescriptorTable",
    "E820Entry",
    "E820Type",
    "FirmwareConfig",
    "GuestRam",
    "MemoryMap",
    "Segment",
    "SplitRam",
    "fw_cfg_contents",
    "install_q35_tables",
    "load_kernel",
    "q35_memory_map",
    "split_ram",
]
