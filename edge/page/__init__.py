"""The local page: drop an X-ray, read the answer with its heat, the day's list. Inside the clinic alone, behind a PIN."""
