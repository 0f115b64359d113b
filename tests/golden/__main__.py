"""`make reference`."""

from tests.golden.generate import write_all

write_all()
