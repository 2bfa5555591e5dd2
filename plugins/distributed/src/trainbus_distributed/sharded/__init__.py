"""Weights of which each process holds a part: which, their gradients, their files."""
