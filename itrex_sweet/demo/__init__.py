"""Material for demonstrations and tests that needs no download."""
