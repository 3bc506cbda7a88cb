"""The explorer: one page with what several runs did with every token of the same text."""
