"""The native run-time: everything the machine executes that is not a guest block."""
