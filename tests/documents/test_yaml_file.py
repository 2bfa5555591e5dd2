"""YAML is read strictly: what a value means, and what is refused with its place."""

import math
from pathlib import Path
from typing import Any

import pytest

from training.documents.yaml_file import read_yaml_with_lines
from training.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    return read_yaml_with_lines(path)[0]


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "c.yaml"
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("3e-5", 3e-5, id="3e-5 is a number"),
        pytest.param("1E3", 1000.0, id="1E3 is a number"),
        pytest.param("-.5", -0.5, id="-.5 is a number"),
        pytest.param(".inf", math.inf, id=".inf is a number"),
        pytest.param("5", 5, id="5 is a whole number"),
        pytest.param("010", 10, id="010 is ten, not octal"),
        pytest.param("0x10", 16, id="0x10 is hexadecimal"),
        pytest.param("'3e-5'", "3e-5", id="a quoted number is text"),
        pytest.param("yes", "yes", id="yes is text"),
        pytest.param("off", "off", id="off is text"),
        pytest.param("true", True, id="true is a boolean"),
        pytest.param("2024-01-01", "2024-01-01", id="a date is text"),
        pytest.param("1:30", "1:30", id="a time is text"),
        pytest.param("1_000", "1_000", id="underscores make text"),
        pytest.param("~", None, id="a tilde is null"),
        pytest.param("", None, id="nothing is null"),
        pytest.param("[1, [2]]", [1, [2]], id="lists nest"),
    ],
)
def test_a_plain_value_means_what_yaml_1_2_says(tmp_path, text, value):
    read = read_yaml(write(tmp_path, f"key: {text}\n"))["key"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_read_as_a_number_for_the_schema_to_refuse(tmp_path):
    assert math.isnan(read_yaml(write(tmp_path, "lr: .nan\n"))["lr"])


@pytest.mark.parametrize("key", ["on", "yes", "true", "1", "null", "3e-5"])
def test_a_key_is_always_text(tmp_path, key):
    assert read_yaml(write(tmp_path, f"{key}: 1\n")) == {key: 1}


def test_lines_of_keys_and_items_are_remembered(tmp_path):
    text = "a: 1\nplugins:\n  - csv\n  - progress: {verbose: 1}\n"
    _, lines = read_yaml_with_lines(write(tmp_path, text))
    assert lines[("a",)] == 1
    assert lines[("plugins", 0)] == 3
    assert lines[("plugins", 1, "progress", "verbose")] == 4


def test_an_alias_is_a_copy_of_its_own(tmp_path):
    values = read_yaml(write(tmp_path, "a: &x {b: 1}\nc: *x\n"))
    values["c"]["b"] = 2
    assert values["a"] == {"b": 1}


def alias_bomb() -> str:
    rungs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rungs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(rungs)


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        pytest.param("a: 1\na: 2\n", "2:1", "line 1", id="a key given twice"),
        pytest.param(
            "a: !!python/object/apply:os.system [x]\n", "1:4", "tag", id="a python tag"
        ),
        pytest.param("a:\n  <<: {b: 1}\n", "2:3", "write its values", id="a merge key"),
        pytest.param("a: !!int 3\n", "1:4", "tag", id="any other tag"),
        pytest.param("a:\n\tb: 1\n", "2:1", "tab", id="a tab"),
        pytest.param(b"\xef\xbb\xbfa: 1\n", "1:1", "byte order", id="a BOM"),
        pytest.param("", "1:1", "empty", id="an empty file"),
        pytest.param("# only\n", "1:1", "empty", id="a file of comments"),
        pytest.param("- a\n", "1:1", "list", id="a list at the top"),
        pytest.param("word\n", "1:1", "single value", id="a word at the top"),
        pytest.param("a: 1\n---\nb: 2\n", "2:1", "second document", id="two documents"),
        pytest.param("a: 1\nb: \xff".encode("latin1"), "2:4", "UTF-8", id="not UTF-8"),
        pytest.param("a: 1\nb: \0\n", "2:4", "U+0000", id="a NUL"),
        pytest.param("a: @x\n", "1:4", "'@'", id="a stray character"),
        pytest.param("? [a]\n: 1\n", "1:3", "key", id="a list as a key"),
        pytest.param("a: *b\n", "1:4", "alias", id="an alias of nothing"),
        pytest.param("a: &a [*a]\n", "1:8", "itself", id="an alias of itself"),
        pytest.param(alias_bomb(), "4:", "grows beyond", id="an alias bomb"),
        pytest.param("a: " + "[" * 5000, "1:35", "nested", id="depth 5000"),
        pytest.param("a: |\n " + "x" * (1 << 21), "1:1", "bytes", id="2 MiB"),
        pytest.param("a: 1\n" * 50_000, "2500:4", "beyond", id="50,000 lines"),
    ],
)
def test_what_could_hide_or_harm_is_refused_with_its_place(
    tmp_path, content, place, reason
):
    path = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:{place}")
    assert reason in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.yaml: No such file"):
        read_yaml(tmp_path / "no.yaml")
