"""What becomes of an intake: read once, answered once, recorded with all that belongs to it."""
