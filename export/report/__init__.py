"""The report of what a network can and cannot do: from predictions to one page that a clinician reads and a statistician checks."""
