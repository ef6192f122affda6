"""The one exception of the boot path."""


class BootError(Exception):
    """A kernel, initrd or option cannot be booted; the text names the file and the way out, for the user to read."""
