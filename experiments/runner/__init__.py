"""Runs a study: in which process, for how long, until when."""
