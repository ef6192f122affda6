"""The x86 guest (64-bit and compatibility mode)."""
