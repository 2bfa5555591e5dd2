"""What a model family must do alike in training, in evaluation and afterwards."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.messages.error_texts import error_text
from training.messages.tables import count
from training.modules.train_mode import evaluating
from training.testing.equality import difference
from training.testing.family.case import FamilyCase, loss_of, without_target
from training.testing.family.confidence import check_confidence

#: Relative difference of losses that summing in another order explains.
TOLERANCE = 1e-4
#: Share of the rows that a model which has learnt them must predict right.
LEAST_RIGHT = 0.5


def check_parts(case: FamilyCase) -> list[str]:
    """Whether the model comes in float32 and eval mode."""
    model, _ = case.parts
    floating = [v for v in model.parameters() if v.is_floating_point()]
    kinds = {value.dtype for value in floating} - {torch.float32}
    problems = [f"weights are {kind}; return them as float32" for kind in kinds]
    if model.training:
        problems.append("the model is in train mode; return model.eval()")
    return problems


def check_batch(case: FamilyCase) -> list[str]:
    """Whether rows become a batch that the model takes, the same each time."""
    batch, again = case.collate(case.rows), case.collate(case.rows)
    problems = []
    odd = [name for name, value in batch.items() if not isinstance(value, Tensor)]
    if odd:
        problems.append(f"{odd[0]!r} is no tensor; a batch is the model's arguments")
    if [*batch.rows] != [*case.rows]:
        problems.append("batch.rows are not the rows it was made from, in their order")
    weight = batch.loss_weight
    if not isinstance(weight, int | float) or not 0 < weight < math.inf:
        problems.append(f"loss_weight is {weight!r}; return a number above 0")
    if found := difference(dict(batch), dict(again)):
        problems.append(f"two batches of the same rows differ: {found}")
    loss = _loss(case, batch)
    if not isinstance(loss, Tensor) or loss.ndim or not loss.isfinite():
        problems.append(f"the model's loss is {loss!r}; it must be one finite number")
    return problems


def check_pickle(case: FamilyCase) -> list[str]:
    """Whether worker processes can be given the family and the processor."""
    copied = []
    for what, value in (("family", case.family), ("processor", case.processor)):
        try:
            copied.append(pickle.loads(pickle.dumps(value)))
        except Exception as error:
            return [f"the {what} does not pickle: {error_text(error)}"]
    family, processor = copied
    batch = family.collate(processor, list(case.rows))
    if found := difference(dict(case.collate(case.rows)), dict(batch)):
        return [f"the copy in a worker makes another batch: {found}"]
    return []


def check_deferred(case: FamilyCase) -> list[str]:
    """Whether work that is left to a device gives the same bits there.

    A family that knows nothing of it leaves none.
    """
    family = copy.copy(case.family)
    family.is_fed_from_host = True
    batch = family.collate(case.processor, list(case.rows))
    if found := difference(dict(case.collate(case.rows)), dict(batch.finished())):
        return [f"with is_fed_from_host the finished batch is another: {found}"]
    return []


def check_weight(case: FamilyCase) -> list[str]:
    """Whether cutting rows into several batches leaves their loss as it was."""
    half = len(case.rows) // 2
    cuts: dict[str, Sequence[Sequence[Mapping[str, Any]]]] = {
        "in halves": [case.rows[:half], case.rows[half:]],
        "one by one": [[row] for row in case.rows],
    }
    whole, weight = _weighed(case, [case.rows])
    problems = []
    for words, cut in cuts.items():
        loss, total = _weighed(case, cut)
        if not math.isclose(loss, whole, rel_tol=TOLERANCE):
            problems.append(
                f"the mean loss is {whole:.6f} in one batch and {loss:.6f} {words}; "
                "loss_weight must be the number of items that the model's mean is over"
                ", and no row's loss may depend on the others"
            )
        elif not math.isclose(total, weight, rel_tol=TOLERANCE):
            problems.append(f"loss_weight is {weight} at once and {total} {words}")
    return problems


def check_prompt(case: FamilyCase) -> list[str]:
    """Whether only the target is learnt, and not what the model is asked, too."""
    fields, problems = case.task.fields, []
    texts = [name for name, kind in fields.items() if kind in ("text", "text?")]
    for row in case.rows:
        weight = case.collate([row]).loss_weight
        room = _room_of_target(case, row)
        if room is not None and weight > room:
            problems.append(
                f"a row's loss_weight is {weight}, but its target takes "
                f"{count(room, 'place')}: the prompt is learnt, too"
            )
        for name in set(texts) - {case.task.target}:
            if isinstance(text := row.get(name), str):
                longer = case.collate([{**row, name: text + text}]).loss_weight
                if longer != weight:
                    problems.append(
                        f"a longer {name!r} changes loss_weight from {weight} to "
                        f"{longer}: the prompt is learnt, too"
                    )
    return problems[:2]


def check_target(case: FamilyCase) -> list[str]:
    """Whether it does without the target, and predicts without looking at it."""
    batch = case.collate(case.bare())
    problems = []
    if batch.loss_weight != 0:
        problems.append(
            f"without targets loss_weight is {batch.loss_weight!r}; return 0"
        )
    bare, told = case.predict_batch(batch), case.predict(case.rows)
    if bare != told:
        problems.append(_differ("with the target in the row", bare, told))
    return problems


def check_mixed(case: FamilyCase) -> list[str]:
    """Whether a row without the target leaves the loss of those beside it alone."""
    problems = []
    for start, words in enumerate(("the second", "the first")):
        known = case.rows[start::2]
        mixed: list[Mapping[str, Any]] = [*case.bare()]
        mixed[start::2] = known
        told = f"where every other row lacks the target, {words} being one, "
        (loss, weight), (alone, least) = (_weighed(case, [r]) for r in (mixed, known))
        if weight != least:
            problems.append(
                f"{told}loss_weight is {weight:g}, and {least:g} without these rows; "
                "leave a row, not its batch, out of the loss, as by labels of -100"
            )
        elif weight and not math.isclose(loss, alone, rel_tol=TOLERANCE):
            problems.append(
                f"{told}the mean loss is {loss:.6f}, and {alone:.6f} without these "
                "rows; they must be no part of it, as by labels of -100"
            )
        if (said := case.predict(mixed)) != (whole := case.predict(case.rows)):
            problems.append(_differ(told[:-2], whole, said))
    return problems[:2]


def check_learning(case: FamilyCase) -> list[str]:
    """Whether what was learnt is what is predicted."""
    predictions = case.predict(case.rows)
    main = case.task.metrics[0]
    scores = [
        case.task.score(said, row)[main]
        for said, row in zip(predictions, case.rows, strict=True)
    ]
    right = sum(scores) / len(scores)
    if right >= LEAST_RIGHT:
        return []
    return [
        f"after {count(case.num_steps, 'step')} on {count(len(case.rows), 'row')} the "
        f"loss went from {case.losses[0]:.3f} to {case.losses[-1]:.3f}, but {main} "
        f"of the same rows is {right:.2f}: {predictions[:3]}; either it takes "
        "more steps (num_steps, lr), or predict does not go on from what collate "
        "teaches"
    ]


def check_predictions(case: FamilyCase) -> list[str]:
    """Whether a prediction is a JSON value that no other row in the batch changes."""
    rows = case.rows
    whole = case.predict(rows)
    if len(whole) != len(rows):
        return [
            f"predict returned {count(len(whole), 'value')} for "
            f"{count(len(rows), 'row')}"
        ]
    try:
        json.dumps(whole, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"predictions are no JSON values: {error}"]
    if len({json.dumps(each) for each in whole}) == 1:
        return [
            f"all rows get the same prediction {whole[0]!r}, which shows nothing; give "
            "rows with other targets, or more steps (num_steps, lr)"
        ]
    alone = [case.predict([row])[0] for row in rows]
    backwards = case.predict(rows[::-1])[::-1]
    problems = []
    if alone != whole:
        problems.append(_differ("in a batch of their own", whole, alone))
    if backwards != whole:
        problems.append(_differ("in another order", whole, backwards))
    return problems


def check_influence(case: FamilyCase) -> list[str]:
    """Whether predicting draws no random number and leaves the model as it was."""
    batch, model = case.collate(case.rows), case.learnt
    before = _random_states()
    weights = copy.deepcopy(model.state_dict())
    case.predict_batch(batch)
    if hasattr(case.family, "predict_with_confidence"):
        case.answer_batch(model, batch)
    drawn = [
        name
        for name, state in _random_states().items()
        if difference(before[name], state)
    ]
    problems = [
        f"predict draws from the generator of {name}, so that an evaluation changes "
        "the training after it; fork the generator"
        for name in drawn
    ]
    if found := difference(dict(weights), dict(model.state_dict())):
        problems.append(f"predict changes the model: {found}")
    if any(module.training for module in model.modules()):
        problems.append("predict leaves parts of the model in train mode")
    return problems


def check_description(case: FamilyCase) -> list[str]:
    """Whether JSON values make the same model and processor again, bar weights."""
    described = case.family.describe(case.learnt, case.processor)
    try:
        text = json.dumps(described, allow_nan=False)
    except (TypeError, ValueError) as error:
        return [f"describe returns no JSON values: {error}"]
    read = json.loads(text)
    if read != described:
        found = difference(described, read) or "a tuple becomes a list"
        return [f"JSON changes what describe returns: {found}"]
    family = copy.deepcopy(case.family)
    try:
        model, processor = family.rebuild(read)
        model.load_state_dict(case.learnt.state_dict())
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        return [f"rebuild fails: {type(error).__name__}: {reason}"]
    problems = []
    batch = family.collate(processor, list(case.rows))
    if found := difference(dict(case.collate(case.rows)), dict(batch)):
        problems.append(f"the rebuilt processor makes another batch: {found}")
    model.eval()
    with torch.no_grad():
        again = list(family.predict(model, processor, batch))
    if again != (said := case.predict(case.rows)):
        problems.append(_differ("by the rebuilt model", said, again))
    return problems


def check_export(case: FamilyCase) -> list[str]:
    """Whether an export writes files, or says that there is none."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            case.family.export(case.learnt, case.processor, Path(folder))
        except NotImplementedError:
            return []
        is_written = any(Path(folder).iterdir())
    return [] if is_written else ["export wrote nothing"]


def check_scores(case: FamilyCase) -> list[str]:
    """Whether the task measures what it says that it measures."""
    task, problems = case.task, []
    predictions = case.predict(case.rows)
    records = []
    for said, row in zip(predictions, case.rows, strict=True):
        scores = task.score(said, row)
        records.append({**row, "prediction": said, **scores})
    measured = {*scores, *task.summarise(records)}
    if measured != set(task.metrics):
        problems.append(
            f"the task measures {sorted(measured)}, but its metrics are "
            f"{sorted(task.metrics)}"
        )
    values = [*scores.values(), *task.summarise(records).values()]
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        problems.append(f"scores are {values}; return finite numbers")
    return problems


FAMILY_CHECKS: Mapping[str, Callable[[FamilyCase], list[str]]] = {
    "parts": check_parts,
    "batch": check_batch,
    "pickle": check_pickle,
    "deferred": check_deferred,
    "weight": check_weight,
    "prompt": check_prompt,
    "learning": check_learning,
    "target": check_target,
    "mixed": check_mixed,
    "predictions": check_predictions,
    "confidence": check_confidence,
    "influence": check_influence,
    "description": check_description,
    "export": check_export,
    "scores": check_scores,
}


def _loss(case: FamilyCase, batch: Any) -> Any:
    model, _ = case.parts
    with evaluating(model):
        return loss_of(model(**batch))


def _weighed(
    case: FamilyCase, cut: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[float, float]:
    """Return the weighted mean of the losses of some batches, and their weight."""
    batches = [case.collate(rows) for rows in cut if rows]
    total = float(sum(batch.loss_weight for batch in batches))
    summed = sum(
        float(_loss(case, batch)) * batch.loss_weight
        for batch in batches
        if batch.loss_weight
    )
    return summed / total if total else math.nan, total


def _room_of_target(case: FamilyCase, row: Mapping[str, Any]) -> int | None:
    """Return by how many columns the target lengthens a batch, None if by none."""
    batch = case.collate([row])
    bare = case.collate([without_target(case.task, row)])
    grown = [
        value.shape[1] - bare[name].shape[1]
        for name, value in batch.items()
        if name in bare and value.ndim == 2 and bare[name].ndim == 2
    ]
    return max(grown) if any(grown) else None


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": str(np.random.get_state()),
        "random": random.getstate(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _differ(words: str, one: Sequence[Any], two: Sequence[Any]) -> str:
    pairs = [(a, b) for a, b in zip(one, two, strict=False) if a != b]
    return (
        f"{len(pairs)} of {len(one)} predictions are others {words}, such as "
        f"{pairs[0][1]!r} for {pairs[0][0]!r}"
    )
