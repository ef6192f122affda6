"""Guests: instruction sets that decode into the IR."""
