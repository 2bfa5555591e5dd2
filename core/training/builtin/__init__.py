"""What comes with the kernel and a run can do without."""
