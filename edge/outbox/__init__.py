"""What waits for the centre: one database that is never half-written, and its rebuilding when it is damaged."""
