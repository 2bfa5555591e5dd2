"""How long a run is, and what may be said of it before it begins."""
