"""Networks, the ways to name one, and what one is made of."""
