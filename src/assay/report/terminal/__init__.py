"""Records printed on a terminal: one module a kind of record."""
