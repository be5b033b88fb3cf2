"""Our own file of a whole model: see docs/kbits_format.md."""
