"""What several test suites share: real servers on free loopback ports, and messages to send."""
