"""The compiled path. Importing it needs numba; nothing is compiled before the first call."""
