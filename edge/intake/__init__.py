"""How files come in: the watched folder and the spool."""
