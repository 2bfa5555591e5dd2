"""Rows of a data set, read strictly from JSON lines."""

from trainbus_data.rows.reading import read_rows

__all__ = ["read_rows"]
