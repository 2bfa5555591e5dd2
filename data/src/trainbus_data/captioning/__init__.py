"""Sentences about pictures."""
