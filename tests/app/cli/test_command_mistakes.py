"""Every mistake is one sentence and an exit code, and changes nothing on the disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Command = Callable[..., tuple[int, str, str]]
RUN = ["run", "run.yaml"]


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Return every file below ``folder`` with its bytes; compiled files left out."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["run", "no.yaml"], 2, "cannot read no.yaml", id="no file"),
        pytest.param(["run", "."], 2, "cannot read", id="a folder"),
        pytest.param(["run", "rows/red.png"], 2, "not UTF-8", id="a picture"),
        pytest.param([*RUN, "--set", "seeed=1"], 2, "did you mean 'seed'", id="a key"),
        pytest.param([*RUN, "--set", "seed=x"], 2, "seed is 'x'", id="a type"),
        pytest.param([*RUN, "--set", "seed"], 2, "has no value", id="a set"),
        pytest.param([*RUN, "-p", "cvs"], 2, "did you mean 'csv'", id="a plugin"),
        pytest.param([*RUN, "-p", "./a.py:B"], 2, "does not exist", id="a plugin file"),
        pytest.param(
            [*RUN, "--set", "plugins.checkpointing.moniter=x"],
            2,
            "did you mean 'monitor'",
            id="an option",
        ),
        pytest.param(
            [*RUN, "--set", "plugins.checkpointing.save_top_k=two"],
            2,
            "save_top_k is 'two', but must be a whole number",
            id="an option's type",
        ),
        pytest.param(
            [*RUN, "--set", "plugins.checkpointing.mode=most"],
            2,
            "must be one of: 'min', 'max'",
            id="an option's choice",
        ),
        pytest.param(["plan", ""], 2, "CONFIG is empty; name the file", id="nothing"),
        pytest.param(
            [*RUN, "--set", "task=VQA"], 2, "did you mean 'vqa'?", id="capitals"
        ),
        pytest.param([*RUN, "--set", "SEED=0"], 2, "did you mean 'seed'?", id="SEED"),
        pytest.param(
            [*RUN, "--set", "plugins=null"], 2, "plugins is null, but", id="null"
        ),
        pytest.param(
            [*RUN, "--set", "training.device=cuda:99"],
            2,
            "--set: training.device is 'cuda:99'",
            id="a device that is not there",
        ),
        pytest.param(
            ["plan", "run.yaml", "--set", "training.device=gpu"],
            2,
            "--set: training.device is 'gpu'",
            id="no device",
        ),
        pytest.param(
            [*RUN, "--set", "model.freeze=[vison_model]"],
            2,
            "vision_model",
            id="freeze",
        ),
        pytest.param(
            [*RUN, "--set", "model.build.hidden_size=15"], 2, "15", id="a size"
        ),
        pytest.param(
            [*RUN, "--set", "training.save_dir=run.yaml/x"],
            2,
            "save_dir",
            id="save_dir",
        ),
        pytest.param(
            [*RUN, "--set", "data.train=rows/no.jsonl"],
            3,
            "rows/no.jsonl",
            id="no rows",
        ),
        pytest.param(
            [*RUN, "--set", "data.train=bad/json.jsonl"], 3, "json.jsonl:1", id="JSON"
        ),
        pytest.param(
            [*RUN, "--set", "data.train=bad/key.jsonl"],
            3,
            "key.jsonl:1",
            id="a key gone",
        ),
        pytest.param(
            [*RUN, "--set", "data.train=bad/image.jsonl"], 3, "no.png", id="no image"
        ),
        pytest.param(
            [*RUN, "--set", "data.train=bad/broken.jsonl"], 3, "it.png", id="no picture"
        ),
        pytest.param(
            [*RUN, "--set", "data.train=bad/empty.jsonl"],
            3,
            "empty",
            id="an empty file",
        ),
        pytest.param(
            ["evaluate", "run.yaml", "--checkpoint", "no.pt"], 4, "no.pt", id="no .pt"
        ),
        pytest.param(
            ["evaluate", "run.yaml", "--checkpoint", "run.yaml"],
            4,
            "run.yaml",
            id="no checkpoint",
        ),
        pytest.param(
            ["evaluate", "run.yaml", "--checkpoint", "x", "--predictions", "run.yaml"],
            2,
            "exists; name a new file",
            id="a file that is there",
        ),
        pytest.param(
            [
                "evaluate",
                "run.yaml",
                "--checkpoint",
                "x",
                "--predictions",
                "no/p.jsonl",
            ],
            2,
            "'no' does not exist",
            id="a folder that is not there",
        ),
        pytest.param(
            ["predict", "--checkpoint", "no.pt", "--image", "a", "--question", "b"],
            4,
            "no.pt",
            id="predict without a checkpoint",
        ),
        pytest.param(
            ["data", "convert", "easy-vqa", "no_clone", "out"],
            3,
            "no_clone",
            id="clone",
        ),
    ],
)
def test_a_mistake_is_told_without_a_traceback_and_writes_nothing(
    arguments: list[str], code: int, words: str, workplace: Path, command: Command
) -> None:
    write_bad_rows(workplace)
    before = contents(workplace)
    found, _, err = command(*arguments)
    assert found == code, err
    assert words in err
    assert "Traceback" not in err
    assert err.startswith("trainbus: error: ")
    assert contents(workplace) == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        pytest.param("vocab_size=9", r"take (\d+); write vocab_size: \1,", id="words"),
        pytest.param("image_size=40", r"patch_size 16 does not divide; ", id="a side"),
    ],
)
def test_what_a_builder_refuses_is_told_with_the_place_of_its_options(
    option: str, words: str, workplace: Path, command: Command
) -> None:
    code, _, err = command("run", "run.yaml", "--set", f"model.build.{option}")
    assert code == 2
    name, value = option.split("=")
    place = r"trainbus: error: run\.yaml:3 and --set: model\.build: "
    assert re.match(f"{place}{name} is {value}, .*{words}", err), err


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param("name: no/such", "name: 'no/such' is neither a fo", id="a name"),
        pytest.param("freeze: [a]", "freeze: freeze names 'a', which matches", id="no"),
        pytest.param("freeze: ['']", "freeze[0] is '', but must be", id="an empty one"),
        pytest.param(
            "freeze: [text_encoder, vision_model, text_decoder]",
            "freeze: it leaves nothing to train; freeze fewer",
            id="all",
        ),
    ],
)
def test_what_a_model_refuses_is_told_with_the_line_of_its_setting(
    model: str, words: str, workplace: Path, command: Command
) -> None:
    text = (workplace / "run.yaml").read_text()
    if model.startswith("name"):
        text = text.replace("  build: {", "  # {")
    text = text.replace("model:\n", f"model:\n  {model}\n")
    (workplace / "run.yaml").write_text(text)
    code, _, err = command(*RUN)
    assert code == 2
    assert err.startswith(f"trainbus: error: run.yaml:3: model.{words}"), err


def test_what_a_constructor_refuses_is_told_with_each_place_of_its_options(
    workplace: Path, command: Command
) -> None:
    (workplace / "own.py").write_text(
        "from training import Callback\n"
        "class Halves(Callback):\n"
        "    def __init__(self, low: float = 0.0, high: float = 1.0):\n"
        "        if low > high:\n"
        "            raise ValueError('low is above high')\n"
    )
    told = "refuses its options: low is above high"
    given = ["-p", "./own.py:Halves", "--set", "plugins.Halves.low=2"]
    code, _, err = command(*RUN, *given)
    assert code == 2
    assert told in err
    assert "error: -p ./own.py:Halves and --set: plugins.Halves: " in err
    with (workplace / "run.yaml").open("a") as file:
        file.write("  - ./own.py:Halves: {high: 0.5}\n")
    _, _, err = command(*RUN, *given[2:])
    assert "error: run.yaml:11 and --set: plugins.Halves: " in err
    assert told in err


def write_bad_rows(folder: Path) -> None:
    bad = folder / "bad"
    bad.mkdir()
    good = '{"image": "red.png", "question": "what?", "answer": "red"}\n'
    shutil.copy(folder / "rows/red.png", bad / "red.png")
    (bad / "it.png").write_text("<html>")
    (bad / "json.jsonl").write_text("{\n" + good)
    (bad / "key.jsonl").write_text('{"image": "red.png", "question": "a"}\n' + good)
    (bad / "image.jsonl").write_text(good.replace("red.png", "no.png"))
    (bad / "broken.jsonl").write_text(good.replace("red.png", "it.png"))
    (bad / "empty.jsonl").write_text("")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        pytest.param("acuracy", "did you mean 'accuracy'", id="a near name"),
        pytest.param("bleu", "this run reports: accuracy", id="the names there are"),
    ],
)
def test_a_metric_that_nobody_produces_is_refused_before_the_first_step(
    metric: str, words: str, workplace: Path, command: Command
) -> None:
    command(*RUN)
    file = workplace / "run.yaml"
    file.write_text(file.read_text().replace("monitor: accuracy", f"monitor: {metric}"))
    before = contents(workplace)
    code, _, err = command(*RUN)
    assert code == 2
    place = "run.yaml:10: plugins.checkpointing.monitor"
    assert err.startswith(f"trainbus: error: {place} watches {metric!r}, but ")
    assert words in err
    assert "Traceback" not in err
    assert contents(workplace) == before


def test_a_broken_plugin_shows_its_own_traceback(
    workplace: Path, command: Command
) -> None:
    (workplace / "mine.py").write_text("def deep(): return 1 / 0\nvalue = deep()\n")
    code, _, err = command(*RUN, "-p", "./mine.py:Mine")
    assert code == 2
    assert "in deep" in err
    assert err.splitlines()[-1].startswith("trainbus: error: -p ./mine.py:Mine: ")


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        pytest.param("KeyboardInterrupt", 130, id="interrupted"),
        pytest.param("RuntimeError", 1, id="a plugin's own error"),
    ],
)
def test_what_a_plugin_raises_decides_the_exit_code(
    raised: str, code: int, workplace: Path, command: Command
) -> None:
    source = (
        "from training import Callback\nclass Mine(Callback):\n"
        f"    def on_batch_end(self): raise {raised}\n"
    )
    (workplace / "mine.py").write_text(source)
    assert command(*RUN, "-p", "./mine.py:Mine")[0] == code


def test_a_loss_that_is_nan_ends_with_5(workplace: Path, command: Command) -> None:
    source = (
        "import torch\nfrom training import Callback\nclass Nan(Callback):\n"
        "    def on_train_begin(self, trainer):\n"
        "        with torch.no_grad():\n"
        "            for value in trainer.model.parameters(): value.fill_(torch.nan)\n"
    )
    (workplace / "nan.py").write_text(source)
    code, _, err = command(*RUN, "-p", "./nan.py:Nan")
    assert code == 5
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "required: COMMAND", id="no command"),
        pytest.param(["runn"], "invalid choice: 'runn'", id="an unknown command"),
        pytest.param(
            ["evaluate", "a"], "required: --checkpoint", id="an argument gone"
        ),
        pytest.param(
            ["run", "a", "--resum", "b"],
            "usage: trainbus run [-h]",
            id="an option of another command, with that command's usage",
        ),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    arguments: list[str],
    words: str,
    command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        pytest.param("--image", "no.png", "no.png", id="no image"),
        pytest.param("--image", "rows/train.jsonl", "is no image", id="no picture"),
        pytest.param("--image", "rows/float.tif", "holds floats", id="floats"),
        pytest.param("--question", " ", "--field question is empty", id="no question"),
    ],
)
def test_a_question_that_cannot_be_answered_ends_with_3(
    option: str, value: str, words: str, workplace: Path, command: Command
) -> None:
    Image.new("F", (4, 4), 0.5).save(workplace / "rows/float.tif")
    command(*RUN)
    (checkpoint,) = (workplace / "out/checkpoints").glob("*.pt")
    given = {"--image": "rows/red.png", "--question": "what?"} | {option: value}
    arguments = [word for pair in given.items() for word in pair]
    code, _, err = command("predict", "--checkpoint", str(checkpoint), *arguments)
    assert code == 3
    assert words in err
