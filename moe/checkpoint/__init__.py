"""Saved states: how they lie on disk or in a bucket, what is kept, how they are read."""
