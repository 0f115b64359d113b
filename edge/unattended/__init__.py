"""What keeps a device alive that nobody looks after: watchdog, logs, health, metrics, orderly ends."""
