"""The embedded demo guest, a small x86-64 kernel of our own that checks the machine it runs on."""

from hw.firmware.demo.demo import BANNER, DEBUG_EXIT_PORT, EXIT_OK, SUCCESS, elf_image, image, load_demo

__all__ = ["BANNER", "DEBUG_EXIT_PORT", "EXIT_OK", "SUCCESS", "elf_image", "image", "load_demo"]
