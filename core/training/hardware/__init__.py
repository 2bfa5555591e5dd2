"""What a run computes on, how exactly, and weights by name whatever wraps them."""
