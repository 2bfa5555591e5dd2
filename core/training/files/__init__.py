"""Files on disk: named by a person, and written so that they survive a crash."""
