"""The command: one command a file."""
