"""Hosts, and ways to run IR."""
