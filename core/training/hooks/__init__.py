"""What makes a function a hook, and the hooks that are asked, not announced."""
