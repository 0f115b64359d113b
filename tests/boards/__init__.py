"""What is proven of boards without a board: installed and run in Debian systems of their architecture, emulated where it is another."""
