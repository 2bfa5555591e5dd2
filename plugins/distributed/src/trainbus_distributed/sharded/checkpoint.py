"""Write a checkpoint as a folder: each process its parts, the main one the rest.

Torch's distributed checkpoints plan who writes what, and write it. What processes tell
one another goes through the group of the run, so that an error of one is everybody's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor, Replicate, Shard

from trainbus_distributed.group import Group
from trainbus_distributed.sharded.state import firsts, mapped, sharded
from training import CheckpointError
from training.plugin import complete_folder, digest_of, temporary_beside, writing

METADATA = ".metadata"

#: What a process has written: torch's account of it, and the digest of each file.
Written = tuple[list[WriteResult], dict[str, Any]]


class ShardedSave:
    """One checkpoint in the making; it is visible when ``complete`` has returned.

    All processes make it, together, then each calls ``write`` by itself, then all call
    ``complete``. Made is also a folder under a name that is swept.

    Args:
        path: of the folder; nothing may have that name.
        state: of this process, its own parts of tensors among it.
        group: the processes.
        copy: of what is written, if training goes on before ``write``.
    Raises:
        CheckpointError: the folder cannot be made, or something is there.
    """

    def __init__(
        self,
        path: Path,
        state: Mapping[str, Any],
        group: Group,
        copy: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self._path, self._group = path, group
        self._draft = group.on_main(lambda: _made(path), "of a draft")
        self._writer = FileSystemWriter(self._draft)  # it syncs each file
        try:
            tensors, self._places = self._named(state)
            rest = mapped(state, lambda _: None)
            parts = {n: t.to_local().detach() for n, t in tensors.items()}
            copied = copy({"parts": parts, "rest": rest if group.rank == 0 else {}})
            self._rest = copied["rest"]
            self._planner = _Planner(copied["parts"])
            self._plan, self._metadata = self._planned(tensors)
        except BaseException:
            self.abandon()
            raise

    def write(self) -> Written:
        """Write the parts of this process; waits for no other, in whichever thread.

        Raises:
            CheckpointError: they could not be written.
        """
        with writing(self._path):
            results = self._writer.write_data(self._plan, self._planner).value()
            names = {result.storage_data.relative_path for result in results}
            return results, {name: digest_of(self._draft / name) for name in names}

    def complete(self, written: Written) -> Path:
        """Let main write the rest, once all have written; return the folder.

        Args:
            written: by this process.
        Raises:
            CheckpointError: it could not be written; nothing has its name.
        """
        by_all = self._group.gather(written, "of what is written")
        return self._group.on_main(lambda: self._committed(by_all), "of a save")

    def abandon(self) -> None:
        """Remove what there is, if this is the main process; nobody waits."""
        if self._group.rank == 0:
            shutil.rmtree(self._draft, ignore_errors=True)

    def _named(
        self, state: Mapping[str, Any]
    ) -> tuple[dict[str, DTensor], dict[str, list[list[Any]]]]:
        """Return the sharded tensors by name, and all places of each.

        What lies in one memory, as tied weights do, is written once.
        """
        found = list(sharded(state))
        order = firsts([tensor for _, tensor in found], self._group)
        tensors: dict[str, DTensor] = {}
        places: dict[str, list[list[Any]]] = {}
        names: list[str] = []
        for index, (first, (place, tensor)) in enumerate(
            zip(order, found, strict=True)
        ):
            name = ".".join(map(str, place))
            names.append(f"{name}-{index}" if name in tensors else name)
            places.setdefault(names[first], []).append(place)
            if first == index:
                tensors[names[index]] = _by_rows(tensor)
        return tensors, places

    def _planned(self, tensors: dict[str, DTensor]) -> tuple[Any, Metadata]:
        """Return what this process writes, and what is known of it all."""
        group, planner, writer = self._group, self._planner, self._writer
        is_main = group.rank == 0
        planner.set_up_planner(tensors, writer.storage_meta(), is_main)
        writer.set_up_storage_writer(is_main)

        def planned_here() -> Any:
            with writing(self._path):
                return writer.prepare_local_plan(planner.create_local_plan())

        plans = group.gather(group.on_each(planned_here, "of plans"), "of plans")

        def divided() -> tuple[list[Any], Metadata]:
            divided, metadata = planner.create_global_plan(plans)
            return writer.prepare_global_plan(divided), metadata

        by_rank, metadata = group.on_main(divided, "of plans")
        return planner.finish_plan(by_rank[group.rank]), metadata

    def _committed(self, by_all: list[Written]) -> Path:
        files = {name: each for _, digests in by_all for name, each in digests.items()}
        with writing(self._path):
            self._writer.finish(self._metadata, [results for results, _ in by_all])
            files[METADATA] = digest_of(self._draft / METADATA)
        # Older releases of torch write them into a copy of the metadata.
        stored = {each.index: each.storage_data for part, _ in by_all for each in part}
        lies = _lies(self._metadata, stored)
        tensors = [
            {"at": places, **lies[name]} for name, places in self._places.items()
        ]
        return complete_folder(self._draft, self._path, self._rest, files, tensors)


class _Planner(DefaultSavePlanner):
    """Plans by sharded tensors; of each this process writes the part that it is given.

    Args:
        parts: by name.
    """

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._parts = parts

    def lookup_object(self, index: Any) -> Tensor:
        return self._parts[index.fqn]


def _made(path: Path) -> Path:
    """Return a new folder beside ``path``, which must not be there."""
    with writing(path):
        if path.exists() or path.is_symlink():
            raise CheckpointError(
                f"{str(path)!r} is there already, and no folder can be replaced by "
                "another at once; remove it, or save under another name"
            )
        draft = temporary_beside(path)
        draft.mkdir(parents=True)
        return draft


def _by_rows(tensor: DTensor) -> DTensor:
    """Return a tensor whose parts are rows of it, or that each process has whole."""
    if tuple(tensor.placements) in ((Shard(0),), (Replicate(),)):
        return tensor
    # A collective. Of what is still to be summed up, a part would be taken for all.
    return tensor.redistribute(placements=[Replicate()])


def _lies(metadata: Metadata, stored: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return shape and type of each tensor, and where its parts lie, in their order.

    Args:
        metadata: of all tensors.
        stored: index of a part -> where it was written.
    """
    lies: dict[str, dict[str, Any]] = {}
    for name, found in metadata.state_dict_metadata.items():
        assert isinstance(found, TensorStorageMetadata)
        kind = {"shape": list(found.size), "dtype": found.properties.dtype}
        lies[name] = {**kind, "parts": []}
    for index in sorted(stored, key=lambda each: tuple(each.offset)):
        # A process beyond the last row has a part without rows, which starts there.
        if not index.offset or index.offset[0] < lies[index.fqn]["shape"][0]:
            place = stored[index]
            part = [place.relative_path, place.offset, place.length]
            lies[index.fqn]["parts"].append(part)
    return lies
