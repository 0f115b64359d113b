"""Data sets as they come from their publishers. `registry` knows them all; each module states where its facts come from."""
