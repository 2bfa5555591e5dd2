"""One of some labels for each picture."""
