"""Labelled text for language models; importing this package loads no array or data library."""
