"""Walking through a document finds what ``json`` finds and refuses what it refuses."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainbus_data.readers.json_items import JsonItems
from training.errors import DataError

keys = st.text(max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.just(0.5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=6,
)
items = st.lists(st.dictionaries(keys, values, max_size=3), max_size=4)
indents = st.sampled_from([None, 0, 2])
any_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def found(folder: Path, text: str, key: str | None) -> list[Any]:
    path = folder / "items.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return [item for _, item in JsonItems(path, (key,))]


@any_folder
@given(listed=items, indent=indents, blanks=st.sampled_from(["", " ", "\n\r\t "]))
def test_the_items_of_a_list_are_those_that_json_finds(
    tmp_path, listed, indent, blanks
):
    text = blanks + json.dumps(listed, indent=indent) + blanks
    assert found(tmp_path, text, None) == listed


@any_folder
@given(listed=items, others=st.dictionaries(keys, values, max_size=3), indent=indents,
       is_last=st.booleans())  # fmt: skip
def test_the_items_under_a_key_are_those_that_json_finds(
    tmp_path, listed, others, indent, is_last
):
    others.pop("rows", None)
    whole = {**others, "rows": listed} if is_last else {"rows": listed, **others}
    assert found(tmp_path, json.dumps(whole, indent=indent), "rows") == listed


@any_folder
@given(
    whole=st.builds(lambda rows, n: {"n": n, "rows": rows, "m": [n]}, items, values),
    place=st.integers(0, 200),
    put=st.sampled_from(["", ",", "]", "}", "{", "[", '"', ":", "x", " "]),
    num_cut=st.integers(0, 3),
)
def test_what_json_refuses_is_refused(tmp_path, whole, place, put, num_cut):
    text = json.dumps(whole)
    place %= len(text)
    text = text[:place] + put + text[place + num_cut :]
    with contextlib.suppress(ValueError):
        json.loads(text)
        return
    with pytest.raises(DataError):
        found(tmp_path, text, "rows")
