"""ViLT: questions about pictures, answered from a list."""

from trainbus_vilt.family import Vilt

__all__ = ["Vilt"]
