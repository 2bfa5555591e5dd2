"""What a run computes on, and how exactly."""
