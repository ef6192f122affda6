"""Translation and execution: forms, patterns, blocks, code buffer, look-up."""
