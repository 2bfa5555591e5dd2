"""Who listens to which event, in which order, and at what cost."""
