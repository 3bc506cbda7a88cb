"""Parameters, FLOPs, bytes; widths that match them; what a compiled program holds."""
