"""Models that name what a picture shows, and a small one made from nothing."""
