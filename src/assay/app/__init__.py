"""The browser app: one picture at a time, its prediction, attacks on it, its factorisation; and recurrences."""
