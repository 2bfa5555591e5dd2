"""Rows: read strictly, or left in their file."""

from trainbus_data.rows.reading import read_rows

__all__ = ["read_rows"]
