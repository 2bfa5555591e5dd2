"""Say which samples were being loaded when that failed, and leave no worker behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from training.errors import DataError
from training.messages.error_texts import add_note, text_of

#: Batches whose indices are remembered: a device tells of a bad loss some steps late.
KEPT = 66
#: Of large batches fewer are: up to 40 bytes each, beside those that are needed.
MOST_INDICES = 1_000_000


class Issued(Sampler[Any]):
    """Yields what ``indices`` yields and remembers the latest.

    Args:
        indices: a sampler or batch sampler.
        loader: the ``DataLoader`` that reads them.
    """

    def __init__(self, indices: Iterable[Any], loader: Any) -> None:
        self.indices = indices
        self.count = 0  # in this pass, so far
        # Its workers ask for indices this far ahead of the batch that is here.
        under_way = loader.num_workers * (loader.prefetch_factor or 0)
        self._needed = under_way + 2
        self._recent: deque[Any] = deque(maxlen=under_way + KEPT)

    def __len__(self) -> int:
        return len(self.indices)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        self.count = 0
        self._recent.clear()
        for each in self.indices:
            self.count += 1
            self._recent.append(each)
            if isinstance(each, list):  # batches are mostly alike in length
                most = max(self._needed, MOST_INDICES // (len(each) or 1))
                if len(self._recent) > most:
                    self._recent.popleft()
            yield each

    def at(self, number: int) -> Any:
        """Return item ``number`` (from 0) of this pass, None if it is forgotten."""
        # Counted from the end: the oldest ones have been dropped.
        place = number - (self.count - len(self._recent))
        return self._recent[place] if 0 <= place < len(self._recent) else None


def require_reached(skip: int, found: int) -> None:
    """Refuse data that ends before the position: the run would train an empty rest.

    Args:
        skip: batches that are left out.
        found: how many of these there were, or all of the epoch.
    Raises:
        DataError: there are fewer.
    """
    if found < skip:
        raise DataError(
            f"the run was saved at batch {skip} of its epoch, and train_dataloader has "
            f"only {found}: resume with the data it had, or from a checkpoint of an "
            "epoch's end, or take the weights alone with weights_only=True"
        )


class Watched:
    """Iterates the batches of one epoch, and knows which one comes next.

    Args:
        loader: torch's, which is iterated.
        issued: the indices it reads.
        skipped: batches of the epoch that were left out before.
    """

    def __init__(self, loader: Any, issued: Issued, skipped: int) -> None:
        #: None until they have begun; of workers that persist, the same again.
        self._batches: Any = loader._iterator
        self._issued = issued
        issued.count = 0  # none: what is known of them is of the pass before
        self._skipped, self._number = skipped, skipped
        self._num_workers = loader.num_workers
        #: The indices of the batch that was yielded last, None if they are forgotten.
        self.latest: Any = None

    def begin(self, iterate: Callable[[], Iterator[Any]]) -> Watched:
        """Iterate what ``iterate`` returns; a worker may be lost before it does."""
        try:
            self._batches = iterate()
        except BaseException as error:
            from training.feed.lost_workers import held_by  # in a run that fails

            # One that fails halfway is nowhere else, and its workers live.
            new = (each for each, is_new in held_by(error) if is_new)
            self._batches = next(new, self._batches)
            raise
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
        except StopIteration:
            require_reached(self._skipped, self._issued.count)
            raise
        except Exception as error:
            from training.feed.lost_workers import require_worker  # in a run that fails

            require_worker(self._batches, error)
            # The error of a lost worker is replaced as the run ends; it needs no note.
            if self.loss(error) is None:
                add_note(error, f"while {self._place()} was loaded")
            raise
        # By number: workers have asked for later indices by now.
        self.latest = self._issued.at(self._number)
        self._number += 1
        return batch

    def place(self, number: int) -> str:
        """Return which batch of the epoch ``number`` is, with its samples if known."""
        place = f"batch {number} of the epoch"
        indices = self._issued.at(number)
        if indices is not None:
            text = text_of(indices)
            place += f", samples {text if len(text) <= 80 else text[:70] + '...'}"
        return place

    def loss(self, error: BaseException) -> DataError | None:
        """Return what to raise if ``error`` says that one of our workers is lost."""
        # In a run that fails.
        from training.feed.lost_workers import held_by, loss_in, workers_of

        own = {each.pid for each in workers_of(self._batches)}
        is_awaited = any(each is self._batches for each, _ in held_by(error))
        name, place = "train_dataloader", self._place()
        return loss_in(error, name, place, lambda lost: lost & own, is_awaited)

    def end(self, kills: bool) -> None:
        """Let the workers end, if nothing else holds them; there is no next batch.

        Args:
            kills: rather than wait while they load a sample, at most 5 s for each; one
                that hangs would outlive the run. See ``end_workers``.
        """
        if kills:
            from training.feed.lost_workers import kill_workers  # in a run that fails

            kill_workers(self._batches)
        else:
            self._batches = iter(())

    def _place(self) -> str:
        place = self.place(self._number)
        if self._num_workers:
            # torch asks its workers in turn, from the first one in each iteration.
            worker = (self._number - self._skipped) % self._num_workers
            place += f", from worker {worker}"
        return place


def draw_as_if_new(loader: Any) -> None:
    """Draw what an iterator with new workers would take from its generator.

    Workers that persist take their seed once, those of a resumed run again: each pass
    counts alike, so that what is drawn after it, an order or for dropout, does not
    depend on how long the workers live.
    """
    if type(loader) is DataLoader and loader._iterator is not None:
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)


def end_workers(loader: Any, kills: bool = False) -> None:
    """End the workers of ``loader`` that persist.

    Left to the garbage collector each would be waited for, 10 s, in the middle of
    anything: their queues are collected first, so that they are never told.

    Args:
        loader: torch's, or a copy of one.
        kills: rather than wait while they load a sample, at most 10 s for each; one
            that is killed might hold a lock.
    """
    batches, loader._iterator = loader._iterator, None
    if kills:
        from training.feed.lost_workers import kill_workers  # in a run that fails

        kill_workers(batches)
    # By name: a traceback may hold it, too.
    if hasattr(batches, "_shutdown_workers"):
        batches._shutdown_workers()


@contextmanager
def ending(loaders: Iterable[Any]) -> Iterator[None]:
    """End the workers that persist which are begun inside, of torch's own loaders.

    Those that ran before are left to their owner. Where the run fails, or leaves for a
    signal, they are killed.
    """
    # A class of its own may read with those of another loader inside, which it keeps.
    plain = [each for each in loaders if type(each) is DataLoader]
    resting = [o for o in plain if o.persistent_workers and o._iterator is None]
    fails = True
    try:
        yield
        fails = False
    finally:
        for loader in resting:
            end_workers(loader, kills=fails)
