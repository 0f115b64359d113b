"""What the device takes: room on the disk, memory under the limits of each profile, time to start."""
