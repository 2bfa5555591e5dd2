"""The kit for model families: what is asked of one, on rows that it brings."""
