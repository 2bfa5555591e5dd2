"""What a person writes, from every source to a validated configuration."""
