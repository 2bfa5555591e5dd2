"""What a run would do, said without doing it."""
