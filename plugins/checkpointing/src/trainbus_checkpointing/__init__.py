"""Checkpoints for trainbus: which to write, under which name, and which to keep."""

from trainbus_checkpointing.checkpointing import ModelCheckpointCallback
from trainbus_checkpointing.filename import FilenameTemplate
from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.retention import Entry

__all__ = ["Entry", "FilenameTemplate", "Manifest", "ModelCheckpointCallback"]
