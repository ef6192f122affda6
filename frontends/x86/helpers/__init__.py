"""The x86 guest's native helpers: system instructions, exceptions, paging, string bodies, state images."""
