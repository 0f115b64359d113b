"""The wire between a device and the centre. Imports the standard library and msgspec only."""
