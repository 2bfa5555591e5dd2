"""What a run computes on, how exactly, and how its numbers come back."""
