"""What is wrong inside of a whole checkpoint ends each command in a sentence."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from trainbus_models.blip.build import build_blip
from trainbus_models.blip.family import Blip
from training import Trainer
from training.checkpoint.state import capture
from training.checkpoint_io import write_checkpoint

Command = Callable[..., tuple[int, str, str]]
State = dict[str, Any]
NAME = "text_encoder.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def real() -> State:
    """Return the state of a run that has not begun, with its model's description."""
    built = build_blip(
        ["what color?", *("red", "green", "blue", "white")],
        hidden_size=16,
        image_size=32,
        num_attention_heads=2,
    )
    model, processor = built["model"], built["processor"]
    described = Blip().describe(model, processor)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    metadata = {
        "model": {"format": 1, "model_type": "blip", **described},
        "config": {"data": {"max_question_length": 12, "max_answer_length": 4}},
    }
    trainer = Trainer(
        *(model, [torch.ones(1, 2)]),
        optimizer=optimizer,
        device="cpu",
        metadata=metadata,
    )
    return copy.deepcopy(capture(trainer))


@pytest.fixture
def write(
    real: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Return a function that writes ``a.pt`` with a value at a place."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32), "red").save("a.png")
    Path("rows.csv").write_text("image,question,answer\na.png,what?,red\n")
    for family, (task, target) in FAMILIES.items():
        Path(f"{family}.yaml").write_text(
            f"task: {task}\nmodel: {{type: {family}, build: {{}}}}\ndata: {{train: "
            f"rows.csv, validation: rows.csv, fields: {{{target}: answer}}}}\n"
        )

    def make(*path: Any, value: Any) -> None:
        outer = state = copy.deepcopy(real)
        for part in path[:-1]:
            outer = outer[part]
        outer[path[-1]] = value
        write_checkpoint("a.pt", state)

    return make


PREDICT = ("predict", "--checkpoint", "a.pt", "--image", "a.png", "--question", "what?")
#: Family of a configuration -> its task, and that task's target.
FAMILIES = {
    "blip": ("vqa", "answer"),
    "image_classifier": ("image_classification", "label"),
}
EVALUATE = ("evaluate", "blip.yaml", "--checkpoint", "a.pt")
OF_ANOTHER = ("evaluate", "image_classifier.yaml", "--checkpoint", "a.pt")
COMMANDS = {
    "predict": PREDICT,
    "export": ("export", "a.pt", "folder"),
    "evaluate": EVALUATE,
}


def one_sentence(err: str) -> bool:
    return "Traceback" not in err and err.strip().count("\n") == 0


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_checkpoint_as_it_was_written_is_taken(
    write: Callable[..., None], command: Command, arguments: list[str]
) -> None:
    """The control."""
    write("metadata", "note", value=1)
    code, _, err = command(*arguments)
    assert (code, "checkpoint" in err) == (0, False)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    "kind", [torch.int64, torch.bool, torch.complex64, torch.uint16, "sparse"], ids=str
)
def test_weights_that_a_resume_refuses_are_refused(
    write: Callable[..., None],
    real: State,
    command: Command,
    arguments: list[str],
    kind: Any,
) -> None:
    weight = real["model"][NAME]
    changed = weight.to_sparse() if kind == "sparse" else weight.abs().to(kind)
    write("model", NAME, value=changed)
    code, out, err = command(*arguments)
    assert (code, out) == (4, "")
    assert f"of another kind: {NAME} is a torch." in err
    assert one_sentence(err)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_half_precision_loses_nothing_and_is_taken(
    write: Callable[..., None], real: State, command: Command, arguments: list[str]
) -> None:
    write("model", NAME, value=real["model"][NAME].bfloat16())
    assert command(*arguments)[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [*COMMANDS.values(), ("export", "a.pt", "a.safetensors")],
    ids=[*COMMANDS, "export of a file"],
)
def test_weights_that_are_not_finite_are_named_and_taken(
    write: Callable[..., None],
    real: State,
    command: Command,
    caplog: pytest.LogCaptureFixture,
    arguments: list[str],
) -> None:
    write("model", NAME, value=torch.full_like(real["model"][NAME], float("nan")))
    assert command(*arguments)[0] == 0
    assert caplog.text.count(f"NaN or infinite values in the model: {NAME}") == 1


def quantized(weight: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop these
        return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param(lambda w: w.to_sparse(), "torch.sparse_coo tensor", id="sparse"),
        pytest.param(quantized, "torch.qint8", id="quantized"),
        pytest.param(lambda w: w.to(torch.complex128), "complex128", id="complex"),
    ],
)
def test_what_a_file_of_weights_cannot_hold_is_not_exported(
    write: Callable[..., None],
    real: State,
    command: Command,
    change: Any,
    word: str,
) -> None:
    write("model", NAME, value=change(real["model"][NAME]))
    code, _, err = command("export", "a.pt", "w.safetensors")
    assert (code, word in err, one_sentence(err)) == (4, True, True), err
    assert not Path("w.safetensors").exists()


def test_whole_numbers_are_exported_as_they_are(
    write: Callable[..., None], real: State, command: Command
) -> None:
    """A file of weights is given to no model, so nothing is cast."""
    whole = torch.ones_like(real["model"][NAME], dtype=torch.uint16)
    write("model", NAME, value=whole)
    assert command("export", "a.pt", "w.safetensors")[0] == 0
    assert torch.equal(load_file("w.safetensors")[NAME], whole)


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: each for name, each in value.items() if name not in names}


TEXT = ("metadata", "model", "config", "text_config")
DESCRIPTIONS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "a text": (("metadata", "model"), "blip"),
    "a list": (("metadata", "model"), [1]),
    "a format that is a tensor": (
        *(("metadata", "model", "format"), torch.tensor([1, 2])),
    ),
    "a format that is true": (("metadata", "model", "format"), True),
    "a type that is a list": (("metadata", "model", "model_type"), ["blip"]),
    "a type that is a tensor": (
        *(("metadata", "model", "model_type"), torch.zeros(2)),
    ),
    "no config": (("metadata", "model", "config"), {}),
    "a config that is a number": (("metadata", "model", "config"), 5),
    "a text config that is a number": (TEXT, 5),
    "a width that is text": ((*TEXT, "hidden_size"), "x"),
    "a negative width": ((*TEXT, "hidden_size"), -3),
    "a width of a gigabyte": ((*TEXT, "hidden_size"), 2**30),
    "no heads": ((*TEXT, "num_attention_heads"), 0),
    "a million layers": ((*TEXT, "num_hidden_layers"), 10**6),
    "an unknown activation": ((*TEXT, "hidden_act"), "no such"),
    "another size of pictures": (
        *(("metadata", "model", "config", "vision_config", "image_size"), 64),
    ),
    "files that are a list": (("metadata", "model", "processor_files"), [1]),
    "a file that is a number": (
        *(("metadata", "model", "processor_files", "tokenizer.json"), 5),
    ),
    "a file that is no JSON": (
        *(("metadata", "model", "processor_files", "tokenizer.json"), "{"),
    ),
    "a file whose name no system has": (
        *(("metadata", "model", "processor_files", "\0"), "{}"),
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("case", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_model_is_rebuilt_from_a_whole_description_or_not_at_all(
    write: Callable[..., None], command: Command, arguments: list[str], case: Any
) -> None:
    write(*case[0], value=case[1])
    code, out, err = command(*arguments)
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert not Path("folder").exists()


@pytest.mark.parametrize(
    "arguments",
    [*COMMANDS.values(), OF_ANOTHER],
    ids=[*COMMANDS, "evaluate as another family"],
)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"format": 2}, id="format 1 called 2"),
        pytest.param({"model_type": None}, id="no type"),
        pytest.param({"model_type": 5}, id="a type that is a number"),
        pytest.param({"format": 2, "family": "blip"}, id="a family that is a text"),
        pytest.param({"format": 2, "family": {"options": {}}}, id="only its options"),
        pytest.param(
            {"format": 2, "family": {"name": "blip", "options": 5}},
            id="options that are a number",
        ),
    ],
)
def test_a_description_that_names_no_family_is_damaged_and_not_of_another_family(
    write: Callable[..., None],
    real: State,
    command: Command,
    changes: dict[str, Any],
    arguments: tuple[str, ...],
) -> None:
    described = {"task": {"name": "vqa"}, **real["metadata"]["model"], **changes}
    write("metadata", "model", value=described)
    code, out, err = command(*arguments)
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert "'a.pt' does not say its family and options; its description" in err


@pytest.mark.parametrize(
    "arguments",
    [
        (*PREDICT[:3], "--image", "a.png"),
        (*PREDICT[:3], "--rows", "rows.csv", "--out", "out.jsonl"),
        COMMANDS["export"],
    ],
    ids=["a picture", "rows", "export"],
)
def test_a_task_that_the_family_does_not_do_is_refused_before_a_row_is_read(
    write: Callable[..., None], command: Command, arguments: tuple[str, ...]
) -> None:
    """No run does captioning with BLIP, which reads a question of each row."""
    write("metadata", "config", "task", value="captioning")
    code, out, err = command(*arguments)
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert "its family 'blip' does not do the task 'captioning', but vqa" in err
    assert not any(map(Path.exists, map(Path, ("out.jsonl", "folder"))))


def test_a_description_without_a_vocabulary_is_refused(
    write: Callable[..., None], real: State, command: Command
) -> None:
    files = without(real["metadata"]["model"]["processor_files"], "tokenizer.json")
    write("metadata", "model", "processor_files", value=files)
    code, _, err = command(*PREDICT)
    assert (code, one_sentence(err)) == (4, True), err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param((), 5, id="a config that is a number"),
        pytest.param(("data",), [1], id="data that is a list"),
        pytest.param(("data", "max_question_length"), "12", id="a length in text"),
        pytest.param(("data", "max_question_length"), 0, id="a length of 0"),
        pytest.param(("data", "max_question_length"), 65, id="beyond the model"),
        pytest.param(("data", "max_question_length"), 2**62, id="beyond memory"),
        pytest.param(("data", "max_answer_length"), 1.5, id="half a token"),
        pytest.param(("data", "max_answer_length"), True, id="true"),
        pytest.param(("data", "max_image_pixels"), [1], id="pixels in a list"),
        pytest.param(("data", "max_image_pixels"), -1, id="pixels below 0"),
    ],
)
def test_how_a_question_was_read_is_a_whole_number_the_model_has_room_for(
    write: Callable[..., None], command: Command, path: Any, value: Any
) -> None:
    write("metadata", "config", *path, value=value)
    code, out, err = command(*PREDICT)
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert path[-1:] == () or f"{path[-1]} is " in err


@pytest.mark.parametrize("at", [(), ("data",)], ids=["config", "its data"])
@pytest.mark.parametrize("value", [None, 5, "a text", [1]], ids=str)
def test_a_configuration_that_is_no_mapping_says_nothing_of_the_model(
    write: Callable[..., None], command: Command, at: Any, value: Any
) -> None:
    write("metadata", "config", *at, value=value)
    assert command("export", "a.pt", "folder")[0] == 0
    assert command(*EVALUATE)[0] == 0
    code, out, err = command(*OF_ANOTHER)
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert "holds a model of the family 'blip', but" in err


def test_a_question_as_long_as_the_model_has_room_for_is_answered(
    write: Callable[..., None], command: Command
) -> None:
    """The control."""
    write("metadata", "config", "data", "max_question_length", value=64)
    assert command(*PREDICT)[0] == 0


@pytest.mark.parametrize(
    ("plugins", "words"),
    [
        pytest.param(5, "plugins is int 5, not a list", id="a number"),
        pytest.param(["csv", 5], "plugins.1 is 5", id="one that is a number"),
        pytest.param(
            [{"evaluation": {"num_beams": "2"}}],
            "plugins.evaluation.num_beams is str '2'",
            id="beams in text",
        ),
        pytest.param(
            [{"evaluation": {"max_new_tokens": 0}}],
            "plugins.evaluation.max_new_tokens is int 0",
            id="an answer of no token",
        ),
    ],
)
def test_how_answers_were_generated_is_checked_before_any_is(
    write: Callable[..., None], command: Command, plugins: Any, words: str
) -> None:
    write("metadata", "config", "plugins", value=plugins)
    code, out, err = command(*PREDICT)
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert f"metadata.config.{words}" in err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("batch_size", "2", id="a size in text"),
        pytest.param("batch_size", 0, id="a size of 0"),
        pytest.param("eval_batch_size", 1.5, id="half a row"),
        pytest.param("fields", ["question"], id="names in a list"),
        pytest.param("fields", {"question": 5}, id="a name that is a number"),
        pytest.param("on_bad_row", ["skip"], id="a list of policies"),
        pytest.param("max_bad_fraction", float("nan"), id="a share of NaN"),
    ],
)
def test_how_many_rows_were_read_is_checked_before_any_is_answered(
    write: Callable[..., None], command: Command, name: str, value: Any
) -> None:
    given = ("predict", "--checkpoint", "a.pt", "--rows", "rows.csv", "--out")
    write("metadata", "config", "data", "note", value=1)
    assert command(*given, "control.jsonl")[0] == 0
    write("metadata", "config", "data", name, value=value)
    code, out, err = command(*given, "out.jsonl")
    assert (code, out, one_sentence(err)) == (4, "", True), err
    assert f"metadata.config.data.{name} is " in err
    assert not Path("out.jsonl").exists()
