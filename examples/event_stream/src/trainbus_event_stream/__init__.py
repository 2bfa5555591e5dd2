"""The events of a run as JSON lines that another process can follow live."""

from trainbus_event_stream.callback import EventStreamCallback
from trainbus_event_stream.follow import follow

__all__ = ["EventStreamCallback", "follow"]
