"""What a person is told, even where a text or a stream is broken."""
