"""The composition root: from a configuration to a trainer that is ready to train."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.app.config.load import Config, as_mapping, compose
from training.discovery.specs import build_plugins
from training.documents.document import Document
from training.hardware.launch import job

if TYPE_CHECKING:
    from training.trainer import Trainer

__all__ = ["build_trainer", "create_trainer_from_config"]

log = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Mapping[str, Any] | Config


def create_trainer_from_config(
    config: Source | None = None,
    *,
    data_config_path: str | os.PathLike[str] | None = None,
    training_config_path: str | os.PathLike[str] | None = None,
    callbacks: Sequence[Any] | None = None,
    plugins: Sequence[Any] | None = None,
    task: str | Mapping[str, Any] | None = None,
    seed: int | None = None,
    model_name: str | None = None,
    model_type: str | None = None,
    batch_size: int | None = None,
    num_epochs: int | None = None,
    max_steps: int | None = None,
    fp16: bool | None = None,
    precision: str | None = None,
    gradient_accumulation_steps: int | None = None,
    max_grad_norm: float | None = None,
    save_dir: str | os.PathLike[str] | None = None,
    device: Any = None,
    nonfinite: str | None = None,
    stop_on_sigusr1: bool | None = None,
    tf32: bool | None = None,
    compile: bool | Mapping[str, Any] | None = None,  # noqa: A002  # as torch has it
    cuda_graphs: bool | None = None,
    loss_per: str | None = None,
    optimizer: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    early_stopping: Mapping[str, Any] | None = None,
    freeze: Mapping[str, Any] | None = None,
    use_tensorboard: bool | None = None,
) -> Trainer:
    """Return a trainer that is ready for ``train()``.

    Sources in rising weight: ``config``, ``data_config_path``,
    ``training_config_path``, then the other arguments; None says nothing. Unless a
    source lists plugins these are active: progress, csv, checkpointing, and with
    validation rows evaluation; one passed in ``callbacks`` replaces its namesake.

    Args:
        config: a YAML file, a mapping of the same keys, or a ``Config``.
        data_config_path: a YAML file, for instance the guide's data configuration.
        training_config_path: a YAML file, for instance with a ``training`` section.
        callbacks: instances with hook methods, beside the configured plugins.
        plugins: what a configuration lists under ``plugins``, in place of that list.
        task: what the model is for: a name, or one over its options.
        seed: of weights, data order and dropout.
        model_name: hub name or folder.
        model_type: model family, by name.
        batch_size: rows in a training batch.
        num_epochs: passes over the training rows.
        max_steps: steps after which training ends.
        fp16: the same as ``precision="fp16"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        gradient_accumulation_steps: batches of one optimizer step.
        max_grad_norm: 2-norm that gradients are clipped to.
        save_dir: folder of the run.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"``; None: CUDA when there is one.
        nonfinite: ``"stop"`` or ``"skip"``.
        stop_on_sigusr1: whether SIGUSR1 ends the run as SIGTERM does.
        tf32: whether fp32 products may round their factors to TF32.
        compile: compile the forward pass; True, or arguments of ``torch.compile``.
        cuda_graphs: record the work of a step once and replay it.
        loss_per: what the loss of a batch is a mean over, such as ``samples``, where
            batches do not say it, as those of model families do.
        optimizer: ``type`` (adamw, adam, sgd), ``lr``, ``weight_decay`` and so on.
        scheduler: ``type`` (cosine, linear, ...) and options of ``lr_scheduling``.
        early_stopping: ``enabled`` and options of ``early_stopping``.
        freeze: ``enabled`` and ``layers``, names of modules.
        use_tensorboard: enable ``tensorboard``.
    Raises:
        ConfigError: every mistake in one sentence each, with its place.
        DataError: the data cannot be used.
    """
    arguments = {
        "task": task,
        "seed": seed,
        "data": {"batch_size": batch_size},
        "model": {"name": model_name, "type": model_type},
        "training": {
            "num_epochs": num_epochs,
            "max_steps": max_steps,
            "fp16": fp16,
            "precision": precision,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "max_grad_norm": max_grad_norm,
            "save_dir": save_dir,
            "device": device,
            "nonfinite": nonfinite,
            "stop_on_sigusr1": stop_on_sigusr1,
            "tf32": tf32,
            "compile": compile,
            "cuda_graphs": cuda_graphs,
            "loss_per": loss_per,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "early_stopping": early_stopping,
            "freeze": freeze,
            "use_tensorboard": use_tensorboard,
        },
        "plugins": plugins,
    }
    sources = (config, data_config_path, training_config_path)
    documents = [_as_document(source) for source in sources if source is not None]
    documents.append(_from_arguments(arguments).comes_from("argument"))
    names = [getattr(each, "name", None) for each in callbacks or ()]
    resolved = compose(documents, taken=[name for name in names if name])
    return build_trainer(resolved, callbacks)


def build_trainer(config: Config, callbacks: Sequence[Any] | None = None) -> Trainer:
    """Return the trainer that ``config`` describes, its run record included.

    Raises:
        TrainbusError: something does not fit; nothing has been written by then.
    """
    named = build_plugins(config.plugins.values(), config.place)
    pairs: Any = named  # a trainer takes finished ones, too
    from training.app.building.components import (
        build_parts,
        data_facts,
        require_training_rows,
        told_at,
    )
    from training.app.building.optimizer import build_optimizer
    from training.app.building.saved_model import described
    from training.builtin.defaults import IMPLIED, SILENT
    from training.builtin.placing import may_divide
    from training.builtin.run_record import RunRecord
    from training.builtin.unmeasured import may_measure
    from training.hardware.strategy import require_alone
    from training.planned.planned_run import NOBODY_EVALUATES
    from training.trainer import Trainer

    require_training_rows(config)
    instances = [*(callbacks or ()), *(plugin for _, plugin in named)]
    if not any(map(may_divide, instances)):
        require_alone()  # here, too: pictures may be drawn before there is a trainer
    parts = build_parts(config, plugins=named)
    mapping = as_mapping(config)
    facts = data_facts(parts.pipeline, parts.recipe.task)
    beginning = parts.pipeline.beginning()
    if beginning:
        facts["beginning"] = str(beginning)
    record = RunRecord(mapping, facts)
    validation = parts.pipeline.get_val_dataloader()
    if validation is not None and not any(map(may_measure, instances)):
        log.warning("%s", NOBODY_EVALUATES)
        validation = None
    with told_at(config, "freeze"):
        optimizer = build_optimizer(parts.model, config.training.optimizer)
    trainer = Trainer(
        model=parts.model,
        train_dataloader=parts.pipeline.get_train_dataloader(),
        val_dataloader=validation,
        optimizer=optimizer,
        callbacks=[*(callbacks or ()), record],
        seed=config.seed,
        # A configuration says itself what is on.
        plugins=[*SILENT, f"no:{IMPLIED}", *pairs],
        **config.training.model_dump(exclude={"optimizer"}),  # the same names
        processor=parts.recipe.processor,
        recipe=parts.recipe,
        metadata={
            "config": mapping,
            "model": described(config, parts.recipe, parts.model),
            **({} if job() is None else {"job": job()}),
        },
    )
    if beginning:
        for told in beginning.never_drawn(trainer.length.epochs_begun):
            log.warning("%s", told)
    return trainer


def _as_document(source: Source) -> Document:
    if isinstance(source, Config):
        source = as_mapping(source)
    if isinstance(source, Mapping):
        return _from_arguments(source)
    return Document.read(Path(source))


def _from_arguments(values: Mapping[str, Any]) -> Document:
    """Return what Python passed; None says nothing."""
    tree = {key: _plain(value) for key, value in values.items()}
    for key in ("data", "model", "training"):
        section = tree.get(key)
        if isinstance(section, dict):
            tree[key] = {k: v for k, v in section.items() if v is not None} or None
    document = Document()
    document.tree = {key: value for key, value in tree.items() if value is not None}
    return document


def _plain(value: Any) -> Any:
    """Return mappings as dicts and tuples as lists, as a file would give them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    # A torch.device, say; torch itself is not asked for here.
    return str(value) if type(value).__name__ == "device" else value
