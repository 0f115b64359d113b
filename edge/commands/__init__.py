"""What `cxr-edge` does beside the answer itself: its processes, and the commands that people type."""
