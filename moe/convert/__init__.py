"""Between our conventions and those of other systems."""
