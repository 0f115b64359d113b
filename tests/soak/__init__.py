"""The simulated clinic: X-ray machines, a watched folder and a browser send studies while everything that can fail does.

`python -m tests.soak --studies 3000 --kills 300` runs it by hand; `test_clinic.py` runs a short one, and `make soak` the long one.
"""
