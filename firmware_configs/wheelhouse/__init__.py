"""What travels to a board that has no internet: the wheels of one architecture and one Python, and what installs them."""
