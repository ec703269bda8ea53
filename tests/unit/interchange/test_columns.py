import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiofoundation.interchange.columns import RESERVED, infer_columns
from audiofoundation.interchange.listing import JsonValue

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], pa.string()),
        ([1, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, False], pa.bool_()),
        ([["a"], ["b", "c"]], pa.list_(pa.string())),
        ([None, None], pa.string()),
        ([[], []], pa.list_(pa.string())),
    ],
)
def test_values_of_one_kind_keep_it(values: list[JsonValue], kind: pa.DataType) -> None:
    columns = infer_columns([{"field": value} for value in values])

    assert columns.types == {"field": kind}
    assert [columns.to_row({"field": value})["field"] for value in values] == values


def test_single_values_among_lists_become_lists_of_one() -> None:
    columns = infer_columns([{"instruments": "piano"}, {"instruments": ["piano", "rain"]}, {}])

    assert columns.types == {"instruments": pa.list_(pa.string())}
    assert columns.to_row({"instruments": "piano"}) == {"instruments": ["piano"]}
    assert columns.to_row({}) == {"instruments": None}


@pytest.mark.parametrize(
    "values", [[1, "a"], [{"a": 1}, {"b": 2}], [["a"], [1]], [2**70, 1], [True, 1], [[[1]], ["a"]]]
)
def test_values_of_several_kinds_are_kept_as_json(values: list[JsonValue]) -> None:
    columns = infer_columns([{"field": value} for value in values])

    assert columns.types == {"field": pa.string()}
    assert columns.as_json == {"field"}
    rows = [columns.to_row({"field": value})["field"] for value in values]
    assert [json.loads(str(row)) for row in rows] == values


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_fields_named_like_ours_get_another_name(name: str) -> None:
    columns = infer_columns([{name: 3}])

    assert columns.to_row({name: 3}) == {f"metadata_{name}": 3}


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_every_column_holds_what_it_is_given(values: list[JsonValue]) -> None:
    columns = infer_columns([{"field": value} for value in values])
    for value in values:
        stored = columns.to_row({"field": value})["field"]
        try:
            array = pa.array([stored], type=columns.types["field"])
        except UnicodeEncodeError:
            continue  # listings refuse what is not Unicode
        found = array.to_pylist()[0]
        if "field" in columns.as_json and value is not None:
            found = json.loads(found)
        elif "field" in columns.as_list and value is not None and not isinstance(value, list):
            (found,) = found
        assert found == value
