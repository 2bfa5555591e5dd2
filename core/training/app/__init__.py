"""What puts a run together: configuration, factory, command line."""
