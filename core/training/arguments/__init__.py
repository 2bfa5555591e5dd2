"""What a trainer is built with, and what may be set on it later."""
