"""Documents of people: the origin of each value, strict YAML, mistakes as sentences."""
