"""Files, --set, -p and Python arguments become one strict configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from training.app.config.load import as_mapping, load_config
from training.app.plugin_tools.active import active
from training.errors import ConfigError, PluginError

BASE = """\
data: {train: a.jsonl}
model: {name: m}
training:
  optimizer:
    lr: 3e-5
plugins:
  - early_stopping: {patience: 2}
  - csv
"""
SHIPPED = sorted(path.name for path in Path(__file__).parents[3].glob("config/*.yaml"))


def written(folder: Path, text: str = BASE) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("override", "read"),
    [
        pytest.param("training.num_epochs=7", ("training", "num_epochs", 7), id="int"),
        pytest.param(
            "training.max_grad_norm=1", ("training", "max_grad_norm", 1.0), id="f"
        ),
        pytest.param(
            "training.device=cuda:1", ("training", "device", "cuda:1"), id="text"
        ),
        pytest.param(
            "training.fp16=true", ("training", "precision", "fp16"), id="guide"
        ),
        pytest.param(
            "model.freeze=[a, b]", ("model", "freeze", ["a", "b"]), id="a list"
        ),
        pytest.param(
            "training.max_steps=null", ("training", "max_steps", None), id="null"
        ),
        pytest.param(
            "data.batch_size= 8", ("data", "batch_size", 8), id="with a blank"
        ),
    ],
)
def test_set_changes_one_value(
    override: str, read: tuple[str, str, Any], tmp_path: Path
) -> None:
    config = load_config(written(tmp_path), [override])
    assert getattr(getattr(config, read[0]), read[1]) == read[2]


def test_a_number_like_3e_minus_5_is_a_float(tmp_path: Path) -> None:
    lr = load_config(written(tmp_path)).training.optimizer.lr
    assert isinstance(lr, float)
    assert lr == pytest.approx(3e-5)


def test_the_last_of_two_sets_wins_and_options_are_merged(tmp_path: Path) -> None:
    sets = ["plugins.early_stopping.mode=max", "seed=1", "seed=2"]
    config = load_config(written(tmp_path), sets)
    assert config.seed == 2
    options = config.plugins["early_stopping"].options
    assert options == {"patience": 2, "mode": "max"}


@pytest.mark.parametrize(
    ("chosen", "enabled"),
    [
        pytest.param(["progress"], ["early_stopping", "csv", "progress"], id="add one"),
        pytest.param(["csv"], ["early_stopping", "csv"], id="already there"),
        pytest.param(["no:csv"], ["early_stopping"], id="switch off"),
        pytest.param(["no:progress"], ["early_stopping", "csv"], id="off already"),
        pytest.param(["./a.py:B"], ["early_stopping", "csv", "B"], id="from a file"),
        pytest.param(["no:csv", "csv"], ["early_stopping", "csv"], id="the last wins"),
    ],
)
def test_p_chooses_plugins(
    chosen: list[str], enabled: list[str], tmp_path: Path
) -> None:
    config = load_config(written(tmp_path), plugins=chosen)
    assert list(config.plugins) == enabled


#: Two of a kind under ids, of which one is the name of another plugin.
TWICE = """\
data: {train: a}
model: {name: m}
plugins:
  - csv: {id: first}
  - csv: {id: second, filename: b.csv}
  - tensorboard: {id: progress}
  - ./mine.py:Mine: {id: own}
"""


@pytest.mark.parametrize(
    ("chosen", "enabled"),
    [
        pytest.param(["no:csv"], "progress own", id="all of the name"),
        pytest.param(["no:first"], "second progress own", id="that id alone"),
        pytest.param(["no:progress"], "first second own", id="an id goes first"),
        pytest.param(["no:./mine.py:Mine"], "first second progress", id="of a file"),
        pytest.param(["no:csv", "csv"], "progress own csv", id="in another's place"),
        pytest.param(
            ["csv", "no:csv", "no:csv"], "progress own", id="its own name, then others"
        ),
    ],
)
def test_what_runs_under_an_id_is_switched_off_by_that_or_by_its_name(
    chosen: list[str], enabled: str, tmp_path: Path
) -> None:
    config = load_config(written(tmp_path, TWICE), plugins=chosen)
    assert " ".join(config.plugins) == enabled
    variable = ",".join(chosen)
    config = load_config(written(tmp_path, TWICE), environment=variable)
    assert " ".join(config.plugins) == enabled
    found = active(tmp_path / "c.yaml", chosen).plugins
    assert {n for n, each in found.items() if each.is_active} == {*enabled.split()}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        pytest.param(
            "csv.filename",
            r"plugin 'csv' runs as 'first' and 'second'; write plugins.first.filename "
            r"or plugins.second.filename$",
            id="two of them",
        ),
        pytest.param(
            "tensorboard.log_dir",
            r"plugin 'tensorboard' runs as 'progress'; write plugins.progress.log_dir$",
            id="one",
        ),
        pytest.param("third.filename", r"enabled are: [^;]*$", id="none of the name"),
    ],
)
def test_options_for_what_runs_under_an_id_are_told_that_id(
    key: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=words):
        load_config(written(tmp_path, TWICE), [f"plugins.{key}=a"])


def test_options_for_what_was_switched_off_are_told_by_what(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'first' is switched off by -p no:csv; lea"):
        load_config(written(tmp_path, TWICE), ["plugins.first.filename=a"], ["no:csv"])


@pytest.mark.parametrize(
    ("data", "enabled"),
    [
        pytest.param(
            "{train: a, validation: b}",
            ["progress", "csv", "evaluation", "checkpointing"],
            id="with validation rows",
        ),
        pytest.param(
            "{train: a}", ["progress", "csv", "checkpointing"], id="without them"
        ),
    ],
)
def test_without_a_list_the_defaults_are_enabled(
    data: str, enabled: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path, f"data: {data}\nmodel: {{name: m}}\n")
    config = load_config(path)
    assert list(config.plugins) == enabled
    options = config.plugins["checkpointing"].options
    assert ("monitor" in options) == ("validation" not in data)


def test_an_empty_list_enables_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "data: {train: a}\nmodel: {name: m}\nplugins: []\n")
    assert load_config(path).plugins == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(
            "seeds: 1", "5: seeds is not a setting .did you mean 'seed'", id="key"
        ),
        pytest.param(
            "lr_scheduling: {warmup: 5}",
            "5: lr_scheduling is a plugin.*: write plugins.lr_scheduling.warmup$",
            id="a plugin's option, as its errors name it",
        ),
        pytest.param(
            "log: 5\nplugins: [csv: {id: log}]",
            "5: log is a plugin.*: write plugins.log.OPTION$",
            id="a plugin under a name of its own",
        ),
        pytest.param("seed: -1", "5: seed is -1, but must be at least 0", id="range"),
        pytest.param("seed: true", "5: seed is true, but must be a whole", id="bool"),
        pytest.param(
            "task: caption", "5: task: task 'caption' is not installed", id="task"
        ),
        pytest.param(
            "plugins: csv", "5: plugins is 'csv', but must be a list", id="list"
        ),
        pytest.param(
            "plugins: [cvs]", "5: plugins.cvs: .*did you mean 'csv'", id="name"
        ),
        pytest.param("plugins: [csv, csv]", "5: plugins.1.: .*twice", id="twice"),
        pytest.param(
            "training: {num_epoch: 1}", "did you mean 'num_epochs'", id="near"
        ),
        pytest.param(
            "training: {num_epochs: 5.5}", "5.5, but must be a whole", id="5.5"
        ),
        pytest.param("training: {schedule: 1}", "did you mean 'scheduler'", id="guide"),
        pytest.param(
            "training: {fp16: yes}", "fp16 is 'yes', but must be true", id="yes"
        ),
        pytest.param("training: {max_grad_norm: -1}", "must be at least 0", id="norm"),
        pytest.param("training: {optimizer: {lr: .nan}}", "must be", id="NaN"),
        pytest.param("training: {optimizer: {lr: -1}}", "must be greater", id="-1"),
        pytest.param("training: {optimizer: {lr: true}}", "must be a number", id="lr"),
        pytest.param(
            "training: {optimizer: {lr: '1e-3'}}", "must be a number", id="text"
        ),
        pytest.param(
            "training: {optimizer: {type: adamax}}",
            "'adamw', 'adam', 'sgd'",
            id="adamax",
        ),
        pytest.param(
            "training: {optimizer: {type: sgd, betas: [0.9, 0.99]}}",
            "betas does not belong to 'sgd'",
            id="an option of another optimizer",
        ),
        pytest.param(
            "training: {early_stopping: 3}", "must be a mapping", id="section"
        ),
        pytest.param(
            "training: {fp16: true, precision: bf16}", "keep one of them", id="both"
        ),
        pytest.param(
            "training: {freeze: {layer: [a]}}",
            "freeze.layer is not a setting",
            id="layer",
        ),
    ],
)
def test_a_mistake_is_told_with_line_path_and_value(
    line: str, words: str, tmp_path: Path
) -> None:
    text = "# one\n# two\ndata: {train: a}\nmodel: {name: m}\n" + line + "\n"
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(written(tmp_path, text))
    assert "c.yaml:5: " in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param("{}", "name is missing", id="no source"),
        pytest.param("{name: m, build: {}}", "keep one", id="two sources"),
        pytest.param("{build: {hidden: 3}}", "did you mean 'hidden_size'", id="a typo"),
        pytest.param(
            "{name: m, freeze: vision}", "must be a list", id="freeze as text"
        ),
    ],
)
def test_a_model_has_one_source(model: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path, f"data: {{train: a}}\nmodel: {model}\n"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        pytest.param("training", "has no value; write --set key", id="no equals sign"),
        pytest.param("=3", "has no value; write --set key", id="no key"),
        pytest.param(
            "training.epochs=3", "^--set: training.epochs is not", id="no key"
        ),
        pytest.param("seed.x=3", "--set: seed is {'x': 3}", id="below a number"),
        pytest.param("training.save_dir=''", "is '', which names no f", id="no path"),
        pytest.param("seed=[1", "--set seed:1", id="a broken value"),
        pytest.param("plugins.csw.a=1", "not enabled .did you mean 'csv'", id="plugin"),
    ],
)
def test_a_wrong_set_is_refused(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path), [override])


@pytest.mark.parametrize(
    ("overrides", "plugins", "environment", "expected"),
    [
        pytest.param([], ["progress"], "", ["progress", "csv"], id="-p"),
        pytest.param([], [], "progress", ["progress", "csv"], id="the variable"),
        pytest.param([], ["no:csv"], "progress", ["progress"], id="off"),
        pytest.param(
            ["plugins.progress.verbose=0"],
            ["progress"],
            "",
            ["progress", "csv"],
            id="an option of what -p names",
        ),
        pytest.param(["seed=1"], [], "no:csv", [], id="nothing is left"),
    ],
)
def test_a_list_in_set_replaces_the_files_and_p_names_plugins_beside_it(
    overrides: list[str],
    plugins: list[str],
    environment: str,
    expected: list[str],
    tmp_path: Path,
) -> None:
    for each in ([*overrides, "plugins=[csv]"], ["plugins=[csv]", *overrides]):
        config = load_config(written(tmp_path), each, plugins, environment)
        assert sorted(config.plugins) == sorted(expected)
    config = load_config(written(tmp_path), [*overrides, "plugins=[]"], ["progress"])
    assert [*config.plugins] == ["progress"]


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        pytest.param("progres", "-p progres: .*did you mean 'progress'", id="unknown"),
        pytest.param("no:csw", "did you mean 'csv'", id="an unknown one off"),
        pytest.param("no:", "name a plugin", id="no name"),
    ],
)
def test_a_wrong_p_is_refused(chosen: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path), plugins=[chosen])


def test_all_mistakes_come_in_one_error(tmp_path: Path) -> None:
    text = "seed: x\ndata: {train: a, bach_size: 1}\nmodel: {name: m}\nplugins: [cvs]\n"
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text), ["training.num_epochs=0"])
    assert len(str(caught.value).splitlines()) == 4


def test_what_is_written_back_reads_as_the_same(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), plugins=["./a.py:B", "progress"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(as_mapping(config)))
    assert as_mapping(load_config(again)) == as_mapping(config)


def test_a_place_names_file_and_line_of_a_plugin_option(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), ["plugins.csv.filename=a"])
    path = tmp_path / "c.yaml"
    assert config.place(("plugins", "early_stopping", "patience")) == (
        f"{path}:7: plugins.early_stopping.patience"
    )
    assert config.place(("plugins", "csv", "filename")) == "--set: plugins.csv.filename"
    config = load_config(written(tmp_path), ["plugins=[{csv: {filename: a}}]"])
    assert config.place(("plugins", "csv", "filename")) == "--set: plugins.csv.filename"


def test_plugin_errors_are_configuration_errors() -> None:
    assert issubclass(PluginError, ConfigError)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_configuration_is_valid(name: str, repository: Path) -> None:
    path = repository / "config" / name
    needed = {
        "vqa_config.yaml": ["model.name=m"],
        "training_config.yaml": ["model.name=m", "data.train=a"],
    }
    tasks = {"colors.yaml": "image_classification", "captions.yaml": "captioning"}
    assert load_config(path, needed.get(name, ())).task == tasks.get(name, "vqa")


def test_reading_a_configuration_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from training.app.config.load import load_config;"
        f"load_config({str(written(tmp_path))!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_is_offered_no_function_in_place_of_a_unit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one of: ") as caught:
        load_config(written(tmp_path), ["training.loss_per=sample"])
    assert "function" not in str(caught.value)
