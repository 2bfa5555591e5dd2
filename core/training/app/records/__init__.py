"""What runs have left of themselves, read without running or importing anything."""
