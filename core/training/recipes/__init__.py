"""What a run asks, which model answers, and where rows lie: three parts, by name."""
