"""Pictures: opened completely, kept within a bound."""

from trainbus_data.images.open_image import ImageFault, open_rgb

__all__ = ["ImageFault", "open_rgb"]
