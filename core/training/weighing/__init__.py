"""What a batch weighs in its window: said by somebody, or measured once."""
