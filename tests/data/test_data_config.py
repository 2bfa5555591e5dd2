"""The data section is typed and strict; the guide's form becomes the same thing."""

from pathlib import Path

import pytest

from trainbus_data.config import DataConfig, parse_data_config
from trainbus_data.pipeline_inputs import load_inputs
from training.discovery.parts import build_pair
from training.errors import ConfigError


def test_the_guides_keys_become_splits():
    paths = {"train": "a.jsonl", "validation": "b.jsonl", "test": None}
    given = {"task_type": "vqa", "data_paths": paths, "batch_size": 4}
    assert load_inputs(given).data == DataConfig(
        train="a.jsonl", validation="b.jsonl", batch_size=4
    )


def test_a_training_section_in_the_same_file_is_left_to_others():
    given = {"data_paths": {"train": "a"}, "training": {"num_epochs": 5}}
    assert load_inputs(given).data.train == Path("a")


def test_files_are_below_the_root():
    assert DataConfig(root="r", train="t").path_of("train") == Path("r/t")
    assert DataConfig(train="t").path_of("train") == Path("t")
    assert DataConfig(train="t").path_of("test") is None


def test_a_dumped_config_reads_back_the_same():
    config = DataConfig(root="r", train="t", max_bad_fraction=0.5)
    assert parse_data_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        pytest.param(
            {"batchsize": 3}, "batchsize is not a setting (did you mean 'batch_size'?",
            id="a misspelt key",
        ),
        pytest.param({"batch_size": "3"}, "batch_size is '3', but must be a whole",
                     id="a number as text"),
        pytest.param({"batch_size": 2.5}, "must be a whole number", id="half a row"),
        pytest.param({"batch_size": True}, "is true, but must be", id="true for one"),
        pytest.param({"batch_size": 0}, "must be at least 1", id="no row"),
        pytest.param({"max_bad_fraction": float("nan")}, "must be a finite number",
                     id="NaN"),
        pytest.param({"on_bad_row": "ignore"}, "must be one of: 'error', 'skip'",
                     id="an unknown policy"),
        pytest.param({"train": 3}, "train is 3, but must be a path", id="no path"),
        pytest.param({"train": ""}, "write the path of a file", id="an empty path"),
        pytest.param({"synthetic": {}}, "synthetic excludes train", id="two sources"),
        pytest.param({"train": None}, "nothing to read", id="no source"),
        pytest.param({"synthetic": {"sed": 1}}, "synthetic.sed is not a setting (did "
                     "you mean 'seed'?)", id="a misspelt key inside"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused_with_path_and_way_out(extra, message):
    with pytest.raises(ConfigError) as caught:
        parse_data_config({"train": "a", **extra})
    assert message in str(caught.value)


def test_each_mistake_is_a_sentence_with_its_line():
    lines = {("data", "batch_size"): 4, ("data", "bach"): 5}
    with pytest.raises(ConfigError) as caught:
        parse_data_config(
            {"train": "a", "batch_size": 0, "bach": 1},
            lambda path: f"c.yaml:{lines[path]}",
            ("data",),
        )
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith("c.yaml:4: data.batch_size is 0, but must be")
    assert second.startswith("c.yaml:5: data.bach is not a setting")


def parts_of(mapping):
    inputs = load_inputs(mapping)
    return build_pair(inputs.task, inputs.family, inputs.options)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        pytest.param({"task_type": "caption", "data_paths": {"train": "a"}},
                     "task 'caption' is not installed",
                     id="another task"),
        pytest.param({"task_type": "vqa"}, "data_paths is None", id="no paths"),
        pytest.param({"data_paths": {"valid": "x"}}, "did you mean 'validation'?",
                     id="a misspelt split"),
        pytest.param({"data_paths": {"train": "x"}, "train": "y"}, "twice",
                     id="a split given twice"),
    ],
)  # fmt: skip
def test_a_wrong_guide_file_is_refused(mapping, message):
    with pytest.raises(ConfigError) as caught:
        parts_of(mapping)
    assert message in str(caught.value)
