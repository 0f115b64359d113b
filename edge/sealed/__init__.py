"""A file that may be carried by anyone: signed by its writer, readable by its reader, and the keys of both."""
