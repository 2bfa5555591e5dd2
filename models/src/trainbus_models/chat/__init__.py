"""Vision and language models with a chat template, and a small one from nothing."""
