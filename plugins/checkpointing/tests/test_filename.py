"""What a checkpoint's file name may be, as a table of claims."""

from __future__ import annotations

import pytest

from trainbus_checkpointing.filename import (
    MAX_NAME_BYTES,
    FilenameTemplate,
    default_template,
)
from training import ConfigError

GUIDE = "checkpoint-{epoch:03d}-{val_loss:.4f}.pt"
COUNTERS = {"epoch": 1, "step": 120, "update": 119}


@pytest.mark.parametrize(
    ("template", "metrics", "name"),
    [
        pytest.param(
            GUIDE, {"val_loss": 0.42131}, "checkpoint-001-0.4213.pt", id="the guide's"
        ),
        pytest.param(GUIDE, {}, "checkpoint-001-na.pt", id="an absent metric is na"),
        pytest.param(
            GUIDE, {"val_loss": float("nan")}, "checkpoint-001-nan.pt", id="NaN is nan"
        ),
        pytest.param(
            "{val_loss:03d}.pt",
            {"val_loss": float("inf")},
            "inf.pt",
            id="an infinite whole number is inf",
        ),
        pytest.param(
            "{val_loss:03d}.pt",
            {"val_loss": 7.0},
            "007.pt",
            id="a float is coerced where a whole number is asked for",
        ),
        pytest.param("{epoch:.1f}.pt", {}, "1.0.pt", id="a counter with decimals"),
        pytest.param("{step}-{update}.ckpt", {}, "120-119.ckpt", id="no format"),
        pytest.param(
            "{accuracy/yes_no:.2f}.pt",
            {"accuracy/yes_no": 0.5},
            "0.50.pt",
            id="a slash in a metric's name does not reach the file name",
        ),
        pytest.param("{loss:+.1e}.pth", {"loss": 1.0}, "+1.0e+00.pth", id="a sign"),
        pytest.param("model.pt", {}, "model.pt", id="no field at all"),
    ],
)
def test_a_template_renders(template, metrics, name):
    rendered = FilenameTemplate(template).render(
        {**metrics, **COUNTERS}, is_mid_epoch=False
    )
    assert rendered == name


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("../{epoch}.pt", id="parent folder"),
        pytest.param("/tmp/{epoch}.pt", id="absolute"),
        pytest.param("sub/{epoch}.pt", id="a folder"),
        pytest.param("..\\{epoch}.pt", id="a backslash"),
        pytest.param("{epoch.__class__}.pt", id="an attribute"),
        pytest.param("{epoch[0]}.pt", id="an index"),
        pytest.param("{epoch!r}.pt", id="a conversion"),
        pytest.param("{}.pt", id="a positional field"),
        pytest.param("{0}.pt", id="a numbered field"),
        pytest.param("{epoch:{step}}.pt", id="a nested field"),
        pytest.param("{epoch:>10}.pt", id="a fill"),
        pytest.param("{epoch:999999999d}.pt", id="a huge width"),
        pytest.param("{epoch:s}.pt", id="a text format"),
        pytest.param("{epoch:}.pt", id="an empty format"),
        pytest.param("{epoch:.2d}.pt", id="decimals of a whole number"),
        pytest.param("{epoch:.2}.pt", id="decimals of a counter"),
        pytest.param("{epoch.pt", id="an open brace"),
        pytest.param("epoch}.pt", id="a closing brace"),
        pytest.param("{{epoch}}.pt", id="doubled braces"),
        pytest.param("a\0{epoch}.pt", id="NUL"),
        pytest.param("a\n{epoch}.pt", id="a line break"),
        pytest.param("a\ud800.pt", id="a lone surrogate"),
        pytest.param("x" * 300 + "{epoch}.pt", id="300 characters"),
        pytest.param("\N{SNOWMAN}" * 70 + ".pt", id="too many bytes, few characters"),
        pytest.param("manifest.json", id="the manifest"),
        pytest.param("{epoch}", id="no suffix"),
        pytest.param(".pt", id="hidden"),
        pytest.param("", id="empty"),
    ],
)
def test_a_template_is_refused_at_once(template):
    with pytest.raises(ConfigError, match=r"^checkpointing\.filename is"):
        FilenameTemplate(template)


def test_a_save_inside_an_epoch_adds_the_step_unless_it_is_there():
    def name(template: str) -> str:
        return FilenameTemplate(template).render(COUNTERS, is_mid_epoch=True)

    assert name("checkpoint-{epoch:03d}.pt") == "checkpoint-001-step120.pt"
    assert name("checkpoint-{step:06d}.pt") == "checkpoint-000120.pt"


def test_a_value_of_300_digits_shortens_the_name_and_keeps_the_suffix():
    name = FilenameTemplate(GUIDE).render({"val_loss": 1e300, **COUNTERS}, False)
    assert len(name) == MAX_NAME_BYTES
    assert name.endswith(".pt")


@pytest.mark.parametrize(
    ("monitor", "template"),
    [
        pytest.param("val_loss", GUIDE, id="a field"),
        pytest.param(None, "checkpoint-{epoch:03d}.pt", id="none"),
        pytest.param("val.acc", "checkpoint-{epoch:03d}.pt", id="no bare name"),
    ],
)
def test_the_default_template_shows_the_monitored_metric(monitor, template):
    assert FilenameTemplate(default_template(monitor)).template == template


def test_metric_fields_are_those_that_are_no_counters():
    assert FilenameTemplate(GUIDE).metric_fields == ("val_loss",)
