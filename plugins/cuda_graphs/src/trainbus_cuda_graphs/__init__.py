"""CUDA graphs for trainbus."""

from trainbus_cuda_graphs.cuda_graphs import CUDAGraphsCallback

__all__ = ["CUDAGraphsCallback"]
