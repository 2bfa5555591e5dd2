"""Files of checkpoints, what they hold, and going on from them."""
