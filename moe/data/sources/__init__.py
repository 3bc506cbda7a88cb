"""Where text comes from: pinned packages, folders, data sets of TFDS."""
