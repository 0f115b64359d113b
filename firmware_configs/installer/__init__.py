"""Puts the device's software onto a board that has no internet, and takes a newer version on trial.

The system's Python and its standard library alone: nothing else is there yet. `main.py` reads the command line; the rooms are
`checks` (nothing is written before all pass), `versions` (one virtual environment each), `device` (what the installed software
itself is asked), `units` (systemd), `trial` (from one version to another, and back), `install` and `uninstall`.
"""
