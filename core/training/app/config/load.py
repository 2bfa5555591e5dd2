"""Read a configuration: files, ``--set`` and ``-p``, or Python arguments, in one form.

Later sources win over earlier ones, value by value. A list of plugins replaces all that
was enabled before it; everything else about plugins adds to it or changes it. Nothing
here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.app.config.guide_keys import translate_once
from training.app.config.recipe_checks import family_of, recipe_mistakes
from training.app.config.requirements import requirement_mistakes
from training.app.config.schema import Config
from training.app.config.sources import gather, sources
from training.discovery import installed
from training.discovery.specs import Locate, PluginSpec, checked_spec, find_plugin
from training.documents.document import Document
from training.documents.mistakes import explain
from training.errors import ConfigError, PluginError
from training.messages.error_texts import text_of

__all__ = [
    "Config",
    "as_mapping",
    "compose",
    "load_config",
]


def load_config(
    path: str | Path,
    overrides: Iterable[str] = (),
    plugins: Iterable[str] = (),
    environment: str = "",
) -> Config:
    """Return the configuration in a YAML file.

    Args:
        path: the file, or the bare name of one that comes with the package; the
            guide's older keys are understood.
        overrides: ``"a.b=value"``, value as in YAML; ``plugins.NAME.option=value``
            changes an enabled plugin.
        plugins: ``"NAME"`` or ``"./file.py:Class"`` to enable, ``"no:NAME"`` to not.
        environment: the same, separated by commas, of the variable TRAINBUS_PLUGINS.
    Raises:
        ConfigError: every mistake in one sentence each, with its place.
    """
    return compose(sources(path, overrides, plugins, environment))


def compose(documents: Sequence[Document], taken: Iterable[str] = ()) -> Config:
    """Return the configuration that ``documents`` make, later ones winning.

    Args:
        documents: sources in rising weight.
        taken: names that instances passed in Python have; no default plugin gets one.
    Raises:
        ConfigError: every mistake in one sentence each, with its place.
    """
    whole, choices = gather(documents, taken)
    if choices.mistakes:
        raise choices.mistakes[0]
    return _validate(whole)


def as_mapping(config: Config) -> dict[str, Any]:
    """Return ``config`` as JSON values in the form that a file has."""
    values = config.model_dump(mode="json", exclude={"plugins"}, exclude_none=True)
    values["plugins"] = [_listed(spec) for spec in config.plugins.values()]
    return values


def _listed(spec: PluginSpec) -> str | dict[str, Any]:
    options = {name: _json_value(value) for name, value in spec.options.items()}
    if spec.id != installed.name_of(spec.use):
        options["id"] = spec.id
    return {spec.use: options} if options else spec.use


def _json_value(value: Any) -> Any:
    """Return ``value`` as JSON can say it; objects that Python passed as text."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _validate(whole: Document) -> Config:
    """Return the checked configuration; all mistakes come in one error."""
    if whole.has(("model", "class")) and whole.has(("model", "weights")):
        raise ConfigError(  # in place of a sentence for each key of such a record
            f"{whole.place(('model',))} is a {whole.get(('model', 'class'))} that was "
            "built in Python, where alone it can be built again; run and measure it "
            "there, as with Evaluator(model, loss_fn=...).evaluate(loader)"
        )
    mistakes: list[str] = []
    specs = {
        name: PluginSpec(entry["use"], name, entry.get("options", {}))
        for name, entry in whole.tree.get("plugins", {}).items()
    }
    family = family_of(whole)
    translate_once(whole, family)
    if family and isinstance(whole.get(("model",)), dict):
        whole.tree["model"].setdefault("type", family)
    values = {**whole.tree, "plugins": specs}
    for name in [*values]:
        is_plugin = name in specs or installed.is_known(name)
        if is_plugin and name not in Config.model_fields:
            given = values.pop(name)
            option = next(iter(given if isinstance(given, dict) else ()), "OPTION")
            mistakes.append(
                f"{whole.place((name,))} is a plugin, whose options stand below "
                f"plugins: write plugins.{name}.{option}"
            )
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        mistakes += explain(error, values, Config, whole.origin)
    mistakes += recipe_mistakes(whole)
    mistakes += _plugin_mistakes(specs.values(), whole, is_refused=bool(mistakes))
    mistakes += requirement_mistakes(whole.get(("requires",)), whole.place)
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    config._source = whole
    return config


def _plugin_mistakes(
    specs: Iterable[PluginSpec], whole: Document, is_refused: bool
) -> list[str]:
    """Return a sentence for each enabled plugin that nobody provides.

    Where there is something to refuse, wrong options are told as well: plugins are
    imported for that, as they are not yet when all is well.
    """
    unknown = {spec.id: _refusal(find_plugin, spec, whole) for spec in specs}
    if not any(unknown.values()) and not is_refused:
        return []
    told = [
        _refusal(checked_spec, spec, whole)
        if spec.options or spec.use not in installed.SHIPPED
        else unknown[spec.id]
        for spec in specs
    ]
    return [each for each in told if each]


def _refusal(
    check: Callable[[PluginSpec, Locate], Any], spec: PluginSpec, whole: Document
) -> str:
    try:
        check(spec, whole.plugin_place)
    except PluginError as error:
        return text_of(error)
    return ""
