"""One row as a user's turn and an assistant's answer, through the chat template."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from training.errors import ConfigError, DataError, did_you_mean
from training.recipes.task import Task

__all__ = [
    "check_prompt",
    "default_prompt",
    "fill",
    "picture_field",
    "render",
    "shown_fields",
]

DESCRIBE = "Describe the picture."


def picture_field(task: Task) -> str:
    """Return the name of the task's one picture.

    Raises:
        ConfigError: the task shows none, or several.
    """
    names = [name for name, kind in task.fields.items() if kind == "picture"]
    if len(names) != 1:
        raise ConfigError(
            f"the task {type(task).__name__} has {len(names)} fields of kind "
            "'picture', but the family chat shows a model exactly one"
        )
    return names[0]


def text_fields(task: Task) -> list[str]:
    """Return the names of the texts that a prompt may show: all but the target."""
    kinds = {"text", "text?"}
    fields = task.fields.items()
    return [name for name, kind in fields if kind in kinds and name != task.target]


def default_prompt(task: Task) -> str:
    """Return the first text that each row has, or else a request to describe."""
    required = [name for name in text_fields(task) if task.fields[name] == "text"]
    return f"{{{required[0]}}}" if required else DESCRIBE


def check_prompt(prompt: str, task: Task) -> None:
    """Refuse a prompt that is no format string over the texts of a row.

    Raises:
        ConfigError: it is not, or shows what the model is to predict.
    """
    known = text_fields(task)
    try:
        named = shown_fields(prompt)
    except ValueError as error:
        raise ConfigError(
            f"model.prompt is {prompt!r}, which is no format string ({error}); write "
            "fields as {name}, and braces as {{ and }}"
        ) from error
    for name in named:
        if name not in known:
            hint = did_you_mean(name, known)
            listed = ", ".join(known) or "none"
            raise ConfigError(
                f"model.prompt shows the field {name!r}{hint}; texts that it may show: "
                f"{listed}"
            )


def shown_fields(prompt: str) -> list[str]:
    """Return the names of the fields whose texts a prompt shows.

    Raises:
        ValueError: it is no format string.
    """
    named = (name for _, name, _, _ in string.Formatter().parse(prompt))
    return [name for name in named if name is not None]


def render(
    processor: Any, prompts: list[str], answers: list[str | None]
) -> tuple[list[str], list[str | None]]:
    """Return what the model reads first, and what it is to go on with, as texts.

    Args:
        processor: has a chat template.
        prompts: what the user says below the picture, B texts.
        answers: what the assistant says; None where that is not known.
    Raises:
        ConfigError: the template writes the user's turn in another way once there is an
            answer, so that training would differ from generation.
    """
    asked = [[_user(prompt)] for prompt in prompts]
    heads = _apply(processor, asked, add_generation_prompt=True)
    known = [place for place, answer in enumerate(answers) if answer is not None]
    tails: list[str | None] = [None] * len(prompts)
    if known:
        told = [[*asked[place], _assistant(str(answers[place]))] for place in known]
        wholes = _apply(processor, told, add_generation_prompt=False)
        for place, whole in zip(known, wholes, strict=True):
            if not whole.startswith(heads[place]):
                raise ConfigError(
                    "the processor's chat template does not write the same before an "
                    "answer as before a generation, so that a model would learn "
                    f"another text than it is asked: {heads[place][-40:]!r} is not in "
                    f"{whole[: len(heads[place]) + 20][-60:]!r}; use another template"
                )
            tails[place] = whole[len(heads[place]) :]
    return heads, tails


def _user(prompt: str) -> dict[str, Any]:
    text = {"type": "text", "text": prompt}
    return {"role": "user", "content": [{"type": "image"}, text]}


def _assistant(answer: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": answer}]}


def _apply(processor: Any, turns: list[Any], **options: Any) -> list[str]:
    texts: list[str] = processor.apply_chat_template(turns, tokenize=False, **options)
    return texts


def fill(prompt: str, row: Mapping[str, Any]) -> str:
    """Return ``prompt`` with the texts of ``row``.

    Raises:
        DataError: the row lacks one.
    """
    try:
        return prompt.format_map(row)
    except KeyError as error:
        raise DataError(
            f"a row has no {error.args[0]!r}, which model.prompt {prompt!r} shows; "
            f"it has: {', '.join(row)}"
        ) from error
