"""What is proven of boards without a board: installed and run in Debian systems of their architecture, some of them emulated."""
