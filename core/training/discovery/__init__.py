"""Which plugins are installed, what they take, and making them."""
