"""Files of tensors, looked at before anything in them is read."""
