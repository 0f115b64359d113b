"""Mosquitto's configuration: the templates, and filling them in."""
