"""Packed layers and `.kbits` files in NumPy, where the C library is not built."""
