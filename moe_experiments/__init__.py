"""Where `experiments` and `configs` are installed, names that other packages have too."""
