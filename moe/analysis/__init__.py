"""Measurements of routing, as pure functions over counts and traces."""
