"""Look at a batch: at all of its rows, or at as many as there is room for.

All of them, although a few cost less: those may be unlike the others, and a loss may
depend on how many rows there are.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.optim import Optimizer

from training.hardware.float32_precision import using_tf32
from training.hardware.rng import is_generator
from training.weighing.candidates import Contents
from training.weighing.collated import holds_samples_second
from training.weighing.cut import first_half
from training.weighing.measure import Measurement
from training.weighing.subject import Look, Subject
from training.weighing.untouched import untouched


def look(
    subject: Subject, batch: Contents, live: list[str] | None = None, turns: int = 3
) -> Look:
    """Return what ``batch`` tells; nothing is moved or trained.

    Args:
        subject: what is measured.
        batch: shares nothing with what is computed on.
        live: units that earlier batches left; None: all.
        turns: cuts to make.
    """
    modules: list[nn.Module] = [subject.model]
    modules += [each for each in subject.beside if isinstance(each, nn.Module)]
    modules += [subject.loss_fn] if isinstance(subject.loss_fn, nn.Module) else []
    optimizers = [each for each in subject.beside if isinstance(each, Optimizer)]
    drawn = [each for each in subject.beside if is_generator(each)]
    with (
        untouched(modules, subject.loader, True, optimizers, drawn) as kept,
        torch.inference_mode(False),
        using_tf32(False),
    ):
        is_second = holds_samples_second(batch, subject.loader)
        subject = replace(subject, is_second=is_second)
        found = Measurement(subject, kept, batch, live, turns).run()
        part = batch.batch
        while found.has_no_room and (part := first_half(part, is_second)) is not None:
            few = Contents(batch.counts, part)
            found = Measurement(subject, kept, few, live, turns).run()
        if found.has_no_room:  # rounding blurs it, but it may have room
            subject = replace(subject, in_full=False)
            found = Measurement(subject, kept, batch, live, turns).run()
        return found
