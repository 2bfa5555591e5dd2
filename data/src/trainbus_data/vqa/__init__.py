"""Visual question answering: data sets, batches, what blind answers score."""
