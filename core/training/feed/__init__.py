"""Batches in an order that the seed and the epoch decide."""
