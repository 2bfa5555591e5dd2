"""One trainbus run on many processes."""

from trainbus_distributed.distributed import DistributedCallback

__all__ = ["DistributedCallback"]
