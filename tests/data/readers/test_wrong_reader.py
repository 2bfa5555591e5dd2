"""What is given to the wrong reader is named, with the line that reads it."""

import json
from pathlib import Path

import pytest
import yaml

from trainbus_data.readers.class_folders import ClassFolders
from trainbus_data.readers.csv_table import CsvTable
from trainbus_data.readers.hugging_face import HuggingFace
from trainbus_data.readers.json_array import JsonArray
from trainbus_data.readers.json_lines import JsonLines
from trainbus_data.readers.vqa_v2 import VqaV2
from training.errors import DataError

ROW = {"image": "a.png", "question": "what?", "answer": "red"}
LINES = 2 * (json.dumps(ROW) + "\n")
#: What lies there -> its content, the reader for it, and that reader's options.
GIVEN = {
    "JSON lines": (LINES, "jsonl", {"path"}),
    "an array": (json.dumps([ROW]), "json", {"path"}),
    "an indented array": (json.dumps([ROW], indent=2), "json", {"path"}),
    "a list in an object": (json.dumps({"data": [ROW]}, indent=1), "json",
                            {"path", "key"}),
    "a list in an object on a line": (
        json.dumps({"info": {"n": 1}, "data": [{"image": "a.png"}]}), "json",
        {"path", "key"}),
    "a long one": (json.dumps({"info": {}, "data": [{"a": "x" * (1 << 20)}]}), "json",
                   {"path", "key"}),
    "a table": ("image,question,answer\na.png,what?,red\n", "csv", {"path"}),
    "a table of others": ("x,y\n1,2\n", "csv", {"path"}),
    "a table of tabs": ("x\ty\n1\t2\n", "csv", {"path", "separator"}),
    "questions": (json.dumps({"info": {}, "questions": [{"question": ""}]}), "vqa_v2",
                  {"questions", "annotations", "images"}),
    "annotations": (json.dumps({"annotations": [{"question_id": 1}]}), "vqa_v2",
                    {"questions", "annotations", "images"}),
    "Parquet": ("PAR1", "hf", {"path"}),
    "Arrow": ("ARROW1", "hf", {"path"}),
    "a saved set": (["state.json"], "hf", {"path"}),
    "saved sets": (["dataset_dict.json"], "hf", {"path"}),
    "described pictures": (["metadata.csv", "a.png"], "hf", {"path"}),
    "a folder of Parquet": (["train-0.parquet"], "hf", {"path"}),
    "folders of classes": (["cat/1.png"], "folders", {"path"}),
}  # fmt: skip
READERS = {
    "jsonl": JsonLines,
    "json": JsonArray,
    "csv": CsvTable,
    "folders": ClassFolders,
    "vqa_v2": lambda path: VqaV2(path, images="{image_id}.jpg"),
    "hf": HuggingFace,
}
#: Read by several readers, each in its way.
BORN_BY = {("an array", "vqa_v2"), ("an indented array", "vqa_v2"),
           ("a list in an object", "vqa_v2"), ("a long one", "vqa_v2"),
           ("a list in an object on a line", "vqa_v2"),
           ("a list in an object on a line", "jsonl")}  # fmt: skip
#: Read by its reader with a key alone.
KEYED = ("a list in an object", "a list in an object on a line", "a long one")


def lay(folder: Path, content: str | list[str], name: str = "given file") -> Path:
    path = folder / name
    if isinstance(content, str):
        path.write_text(content)
        return path
    for each in content:
        (path / each).parent.mkdir(parents=True, exist_ok=True)
        (path / each).touch()
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", GIVEN)
def test_it_is_named_with_the_line_of_configuration_that_reads_it(
    tmp_path, what, reader
):
    content, right, options = GIVEN[what]
    is_read = reader == right and what not in KEYED
    if is_read or (what, reader) in BORN_BY:
        return
    path = lay(tmp_path, content)
    with pytest.raises(DataError) as caught:
        READERS[reader](path)
    told = str(caught.value)
    assert "\n" not in told
    line = told[told.index("; read it with {") + len("; read it with ") :]
    ((name, given),) = yaml.safe_load(line.partition(", or write")[0]).items()
    assert name == right
    assert given.keys() == options
    assert str(path) in given.values()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b\x08", "is compressed with gzip; unpack it"),
        (b"PK\x03\x04", "is a zip archive; unpack it"),
        (b"\x89PNG\r\n", "is a picture; name the file of rows"),
        (b"<!DOCTYPE html>", "is a web page or XML"),
        (LINES.encode("utf-16"), "is UTF-16 text; write it as UTF-8: iconv"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_what_no_reader_reads_is_named_with_the_way_out(
    tmp_path, reader, content, words
):
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        READERS[reader](path)
