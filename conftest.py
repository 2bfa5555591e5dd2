"""Trainers of tests show nothing and keep no record, unless a test is about that."""

import os

import torch

os.environ.setdefault("TRAINBUS_DEFAULTS", "off")

# Behind torch.compile the first one would start threads, in a build for CUDA that sees
# no GPU, and no process that a test forks could train.
torch.ones((), requires_grad=True).backward()
