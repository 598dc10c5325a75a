"""How mix counts tokens, splits off the held-out rows, and samples."""
