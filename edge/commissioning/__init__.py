"""Silent commissioning: whether a clinic is shown answers, and what brought that about."""
