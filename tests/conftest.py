"""What holds for all tests."""

from hypothesis import settings

# No test asks how long it takes: on a busy machine the first example may take a second.
settings.register_profile("all", deadline=None)
settings.load_profile("all")
