"""The optimizer: ordered passes over one block of IR."""
