"""The translator: knows no guest, no host, no device."""
