"""Rows of a data set: read strictly, or left where they are."""
