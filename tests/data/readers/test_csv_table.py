"""Tables: every cell is a text, an empty one is none, and nothing is guessed."""

from pathlib import Path

import pytest

from trainbus_data.readers.csv_table import CsvTable
from trainbus_data.rows.json_lines import UnusableRow
from training.errors import ConfigError, DataError


def write(folder: Path, text: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_separator_that_is_said_counts_more_than_excels_line(tmp_path: Path) -> None:
    path = write(tmp_path, "sep=;\na|b\n1|2\n")
    assert list(CsvTable(path, separator="|")) == [{"a": "1", "b": "2"}]


HEAD = "image,question,answer\n"


@pytest.mark.parametrize(
    ("text", "row"),
    [
        pytest.param("a,b\n007,NA\n", {"a": "007", "b": "NA"}, id="007 and NA"),
        pytest.param("a,b\nTrue,1e3\n", {"a": "True", "b": "1e3"}, id="so is all else"),
        pytest.param("a,b\n,null\n", {"b": "null"}, id="empty is absent"),
        pytest.param('a,b\n" ",""\n', {}, id="so are blanks"),
        pytest.param('a,b\n"x,y","say ""no"""\n', {"a": "x,y", "b": 'say "no"'},
                     id="quotes"),
        pytest.param('a,b\n"x\ny",z\n', {"a": "x\ny", "b": "z"}, id="a line end"),
        pytest.param('a,b\nsay "no",z\n', {"a": 'say "no"', "b": "z"},
                     id="quotes within"),
        pytest.param('a,b\n "no" it says,z\n', {"a": ' "no" it says', "b": "z"},
                     id="and at its beginning"),
        pytest.param("a,b\r\n1,2\r\n", {"a": "1", "b": "2"}, id="CRLF"),
        pytest.param("a,b\n1,2", {"a": "1", "b": "2"}, id="no end of the last"),
        pytest.param("\ufeffa,b\n1,2\n", {"a": "1", "b": "2"}, id="a byte order mark"),
        pytest.param('\ufeff"a",b\n1,2\n', {"a": "1", "b": "2"}, id="and quotes"),
        pytest.param("\n\na,b\n\n1,2\n", {"a": "1", "b": "2"}, id="blank lines"),
        pytest.param("sep=;\na;b\n1;2\n", {"a": "1", "b": "2"}, id="Excel's line"),
        pytest.param("\ufeffsep=,\r\na,b\r\n1,2\r\n", {"a": "1", "b": "2"},
                     id="of commas"),
        pytest.param(" a ,b\n1,2\n", {"a": "1", "b": "2"}, id="blanks around a name"),
        pytest.param(",a,\n0,1,\n", {"a": "1"}, id="columns without a name"),
        pytest.param("a,answers\n1,x; y;z\n", {"a": "1", "answers": ["x", "y", "z"]},
                     id="answers are several"),
        pytest.param("a,answers\n1,x;\n", {"a": "1", "answers": ["x"]}, id="or one"),
        pytest.param("a,answers\n1,;\n", {"a": "1"}, id="or none"),
    ],
)  # fmt: skip
def test_a_line_is_a_row_of_texts(tmp_path, text, row):
    rows = CsvTable(write(tmp_path, text))
    assert len(rows) == 1
    assert rows[0] == row


def test_the_suffix_says_the_separator_and_the_option_overrides_it(tmp_path):
    tabs = write(tmp_path, "a\tb\n1,5\t2\n", "rows.tsv")
    assert CsvTable(tabs)[0] == {"a": "1,5", "b": "2"}
    bars = write(tmp_path, "a|b\n1,5|2\n")
    assert CsvTable(bars, separator="|")[0] == {"a": "1,5", "b": "2"}


def test_other_columns_may_hold_lists(tmp_path):
    path = write(tmp_path, "answers,tags\na;b,c;d\n")
    assert CsvTable(path, lists=["tags"])[0] == {"answers": "a;b", "tags": ["c", "d"]}


def test_a_pattern_fills_up_texts(tmp_path):
    path = write(tmp_path, "image_id,question\n42,what?\n")
    assert CsvTable(path, images="{image_id:0>6}.jpg")[0]["image"] == "000042.jpg"
    with pytest.raises(UnusableRow, match="a text is filled up with zeros by"):
        CsvTable(path, images="{image_id:06d}.jpg")[0]


def test_a_place_is_where_a_row_begins(tmp_path):
    path = write(tmp_path, 'a,b\n1,2\n\n"x\ny\n",3\n4,5\n')
    rows = CsvTable(path)
    assert [rows.place(n) for n in range(3)] == [f"{path}:{n}" for n in (2, 4, 7)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1", "has 1 cell, where the head has 2; a cell that holds ','"),
        ("1,2,3", "has 3 cells, where the head has 2; a cell that holds ','"),
        ("\"['x']\",2", "a is \"['x']\" (a string), a list in brackets; separate"),
        ('1, "x"', "has a blank before the double quote in ' \"x\"'"),
        ('1, "x, y"', "has a blank before the double quote in ' \"x'"),
        ('"Stop" sign,2', "is no CSV: ',' expected after '\"'"),
        (f"1,{'x' * 1_048_577}", "has a cell of more than 1048576 characters"),
        (f'1,"{"x, " * 400_000}"', "has a cell of more than 1048576 characters"),
        (f'"{"x" * 1_048_577}",""', "has a cell of more than 1048576 characters"),
    ],
)
def test_a_line_that_is_no_row_hurts_no_other(tmp_path, line, reason):
    rows = CsvTable(write(tmp_path, f"a,b\n1,2\n{line}\n3,4\n"), lists=["a"])
    assert (rows[0], rows[2]) == ({"a": ["1"], "b": "2"}, {"a": ["3"], "b": "4"})
    assert rows.faulty == (1,)
    assert rows.place(1).endswith("rows.csv:3")
    with pytest.raises(UnusableRow) as caught:
        rows[1]
    assert str(caught.value).startswith(reason)


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", r"rows\.csv is empty"),
    "blanks": ("\n \n", r"rows\.csv is empty"),
    "a head alone": (HEAD, r"rows\.csv holds no rows"),
    "a name twice": ("a,b,a\n1,2,3\n", ":1: the head names the column 'a' twice"),
    "a quote left open": (
        HEAD + 'a,b,c\nd,"e,f\ng,h,i\n',
        r":3: a cell begins here that does not end .* as two: \"\"",
    ),
    "a long line that leaves a cell open": (
        HEAD + f'a,b,"{"x" * 1_048_577}' + '\ninner,"",row\n"\n',
        ":2: a cell begins here",
    ),
    "a cell without end": (HEAD + 'a,"' + "b\n" * 600_000, ":2: a cell begins here"),
    "Latin 1": (
        HEAD.encode() + b"a,b,gr\xfcn\n",
        r":2: is not UTF-8 at byte 7; .*iconv .* rows\.csv > utf8\.csv",
    ),
    "semicolons": (
        "image;answer\na;b\n",
        r":1: .*separated by ';', write .*separator: \";\"",
    ),
    "tabs": ("one\ttwo\n1\t2\n", r"separated by '\\t'.*separator: \"\\t\""),
    "a blank before a quote": ('a, "b"\n1,2\n', ":1: the head has a blank before"),
    "one column of others": ("one;two\n1\n", ":1: the head is one column, 'one;two'"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_table_is_told_in_a_sentence(tmp_path, text, words):
    with pytest.raises(DataError, match=words) as caught:
        CsvTable(write(tmp_path, text))
    assert "rows.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cell_may_be_as_long_as_a_row_of_json_lines(tmp_path):
    rows = CsvTable(write(tmp_path, f"a,b\n1,{'x' * 1_000_000}\n"))
    assert (rows.faulty, len(rows[0]["b"])) == ((), 1_000_000)


@pytest.mark.parametrize("separator", ["", "::", '"', "\n"])
def test_a_separator_is_one_character(tmp_path, separator):
    with pytest.raises(ConfigError, match="must be one character"):
        CsvTable(tmp_path / "rows.csv", separator=separator)


def test_a_list_of_columns_is_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"lists is 'tags'; write a list: \[tags\]"):
        CsvTable(tmp_path / "rows.csv", lists="tags")
