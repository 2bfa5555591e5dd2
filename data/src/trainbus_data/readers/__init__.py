"""Readers: where rows lie, and in which layout.

A reader has ``len(r)``; ``r[i]``, a mapping of plain values, or ``UnusableRow``;
``r.place(i)``, as in ``rows.csv:17``, or ``rows.json:1#17`` for the 17th of several
rows on a line; ``r.root``, the folder of relative pictures; and
``r.fingerprint``.
"""
