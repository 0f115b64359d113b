"""Making a network smaller and faster, and measuring what that costs."""
