"""BLIP for visual question answering, and a small one made from nothing."""
