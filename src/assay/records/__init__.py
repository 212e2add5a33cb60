"""Records: what was measured, as frozen plain values."""
