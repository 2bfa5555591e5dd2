"""Proofs about a run: its gradients, its resume, what its plugins cost."""
