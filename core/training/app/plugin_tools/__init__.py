"""What people ask and do about plugins."""
