"""What the parts of a checkpoint must be, before anything takes them over."""
