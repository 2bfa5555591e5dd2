"""Trainers of tests show nothing and keep no record, unless a test is about that."""

import os

os.environ.setdefault("TRAINBUS_DEFAULTS", "off")
