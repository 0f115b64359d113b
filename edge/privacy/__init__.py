"""Names stay in the clinic: pseudonyms, the site's key, X-rays that name nobody."""
