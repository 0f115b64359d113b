"""The stages of the quick report."""
