"""What happens between two batches, and how a step is made."""
