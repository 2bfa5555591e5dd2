"""Write a checkpoint's weights for other programs, or a sharded one as one file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from training.errors import CheckpointError, ConfigError
from training.files.leftovers import sweep_drafts
from training.files.named_paths import named_path

__all__ = ["export"]

log = logging.getLogger(__name__)

SUFFIX = ".safetensors"
#: Of a checkpoint in one file.
WHOLE = ".pt"
#: Of files that others keep weights in; whoever names one wants no folder.
FILES = (
    *(SUFFIX, ".safetensor", WHOLE, ".pth", ".bin", ".ckpt", ".onnx", ".gguf"),
    *(".npz", ".npy", ".h5", ".pkl", ".zip"),
)
#: How weights of a model that Python built come to where others read them.
IN_PYTHON = (
    "build the model as for training, give it these with trainer.load_checkpoint(FILE, "
    "weights_only=True), and save it with its save_pretrained, adapters of peft "
    "merged into it by model.merge_and_unload().save_pretrained(FOLDER)"
)
#: In names of weights whose layer an adapter is beside, as peft has it.
ADAPTED = ".base_layer."


def export(arguments: argparse.Namespace) -> None:
    """Write one ``.safetensors`` file, or a folder that ``from_pretrained`` reads.

    Of a sharded checkpoint also one file of all its state, from which a run goes on.
    """
    from training.app.building.saved_model import SavedModel
    from training.checkpoint_io import write_checkpoint
    from training.layout import read_state
    from training.modules.frozen_weights import is_whole

    out = _new_path(named_path(arguments.out))
    checkpoint = named_path(arguments.checkpoint)
    is_whole_state = out.suffix.lower() == WHOLE and not arguments.adapter
    is_sharded = is_whole_state and checkpoint.is_dir()
    if out.suffix != SUFFIX:
        if checkpoint.exists() and not is_sharded:
            _refuse_file(out, arguments.adapter)
        _require_utf8(out)
    state = read_state(arguments.checkpoint)
    progress = state["progress"]
    if is_sharded:
        write_checkpoint(out, state)
        print(f"{out}: all of {arguments.checkpoint}, in one file")
        return
    if not is_whole(state) and SavedModel.of(state, arguments.checkpoint) is None:
        raise CheckpointError(
            f"{arguments.checkpoint!r} holds trained weights alone and does not say "
            f"how its model was made, so nothing can be exported; {IN_PYTHON}, or with "
            "trainer.save_checkpoint(NEW) for an export of NEW"
        )
    if out.suffix == SUFFIX and not arguments.adapter:
        _write_weights(out, state, arguments.checkpoint)
    else:
        _write_pretrained(out, state, arguments.checkpoint, arguments.adapter)
    print(
        f"{out}: the weights of {arguments.checkpoint}, epoch {progress['epoch']}, "
        f"step {progress['step']}"
    )


def _write_weights(out: Path, state: Mapping[str, Any], source: str) -> None:
    """Write every tensor under its name in the model; tied ones are written twice."""
    from safetensors.torch import save
    from torch import Tensor

    from training.app.building.saved_model import SavedModel
    from training.checkpoint.checks.parts import is_dense, shown
    from training.checkpoint.state import warn_of_nonfinite
    from training.files.durable import write_durably
    from training.modules.frozen_weights import is_whole

    if not is_whole(state):
        raise CheckpointError(
            f"{source!r} holds trained weights alone, of which no {SUFFIX} file is "
            "made; name a folder for the whole model, or pass --adapter"
        )
    weights = {}
    for name, value in state["model"].items():
        if isinstance(value, Tensor):
            if not is_dense(value):
                raise CheckpointError(
                    f"{source!r} cannot be exported: {name} is {shown(value)}, and a "
                    f"{SUFFIX} file holds dense tensors only; make it dense in the "
                    "model before saving"
                )
            weights[name] = value.contiguous().clone()
    warn_of_nonfinite(weights, {}, "model", source)
    try:
        content = save(weights, metadata={"format": "pt"})
    except KeyError as error:
        raise CheckpointError(
            f"{source!r} cannot be exported: a {SUFFIX} file holds no {error.args[0]}, "
            "of which some weights are; change their dtype in the model before saving"
        ) from error
    write_durably(out, lambda file: file.write(content))
    if any(ADAPTED in name for name in weights):
        is_described = SavedModel.of(state, source) is not None
        way = "name a folder, in which they are merged"
        log.warning(
            "%s has adapters beside the weights that they adapt, not merged into them, "
            "which only a model with such adapters loads; for one without, %s",
            *(out, way if is_described else IN_PYTHON),
        )


def _write_pretrained(
    out: Path, state: Mapping[str, Any], source: str, is_adapter: bool
) -> None:
    """Write model, configuration and processor as transformers reads them.

    Args:
        out: the folder.
        state: of a checkpoint.
        source: the checkpoint, for messages.
        is_adapter: whether low-rank adapters are written alone, not merged into it.
    """
    from safetensors import SafetensorError

    from training.app.building.saved_model import SavedModel, fill

    saved = SavedModel.of(state, source)
    if saved is None:
        without = ", without --adapter" if is_adapter else ""
        raise CheckpointError(
            f"{source!r} does not say how its model was made, so there is no folder to "
            f"write for from_pretrained; name a file instead{without}: "
            f"{str(out).removesuffix(SUFFIX)}{SUFFIX}; or {IN_PYTHON}"
        )
    if is_adapter:
        if not saved.description.get("lora"):
            raise CheckpointError(f"{source!r} has no adapters; leave --adapter out")
        _refuse_file(out, is_adapter=True)  # also that of a file of weights
    model, recipe = saved.rebuilt()
    fill(model, state, source)
    adapters = import_module("trainbus_models.lora")
    with import_module("trainbus_data.folders").new_folder(out) as draft:
        if is_adapter:
            adapters.save_adapter(model, draft, saved.description.get("base"))
            return
        model = adapters.merged(model) if adapters.has_lora(model) else model
        try:
            recipe.family.export(model, recipe.processor, draft)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{source!r} holds a model that no other program reads ({error}); name "
                f"a file for its weights instead: {out}{SUFFIX}"
            ) from error
        except SafetensorError as error:  # no OSError, also where a disk is full
            raise OSError(str(error)) from error


def _new_path(out: Path) -> Path:
    if out.exists():
        raise ConfigError(f"{str(out)!r} exists; name a new file or folder")
    if not out.absolute().parent.is_dir():
        raise ConfigError(
            f"the folder {str(out.absolute().parent)!r} does not exist; make it, or "
            "name another place"
        )
    sweep_drafts(out)
    return out


def _refuse_file(out: Path, is_adapter: bool) -> None:
    """Refuse a folder's name that is the name of a file."""
    if out.suffix.lower() not in FILES:
        return
    written, name = f"weights are written as {SUFFIX} or", out.with_suffix(SUFFIX)
    way = f"name {str(name)!r}, or a folder"
    if is_adapter:
        written, way = "adapters are written", f"name {str(out.with_suffix(''))!r}"
    raise ConfigError(
        f"{str(out)!r} is named as a file, and {written} as a folder; {way}"
    )


def _require_utf8(out: Path) -> None:
    """Refuse a folder's name that the library cannot be told."""
    try:
        str(out).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"the folder {str(out)!r} is not named in UTF-8, as {SUFFIX} files in it "
            "must be; name another"
        ) from error
