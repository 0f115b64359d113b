"""What goes onto a device and into the centre: a list of it, its licences, what is known to be unsafe, and no secrets."""
