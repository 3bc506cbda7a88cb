"""Benchmarks, one a file, and what they share: timing, cases, pages of numbers."""
