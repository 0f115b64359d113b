"""`make bench`: ratios against the least that the same work could cost, each pair measured in one run."""
