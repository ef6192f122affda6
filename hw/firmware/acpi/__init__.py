"""The ACPI tables of a q35 board."""

from hw.firmware.acpi.config import AcpiConfig
from hw.firmware.acpi.placement import AcpiImage, acpi_image, fw_cfg_files

__all__ = ["AcpiConfig", "AcpiImage", "acpi_image", "fw_cfg_files"]
