"""Grouped matrix products: rows sorted by expert times each expert's own matrix."""
