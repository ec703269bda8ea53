"""Metadata as people write it, as columns of one type each, which Arrow needs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from audiofoundation.interchange.listing import JsonValue

RESERVED = frozenset({"audio_features", "musicgen_features", "whisper_features", "processed_audio", "sample_rate"})
_PREFIX = "metadata_"


@dataclass(frozen=True, slots=True)
class MetadataColumns:
    """The columns that a folder's metadata becomes.

    Attributes:
        types: Arrow type by column, in order of appearance.
        as_json: columns whose values differ too much for one type: each value is stored as its JSON text.
        as_list: columns that hold lists and single values: the latter become lists of one.
    """

    types: Mapping[str, pa.DataType]
    as_json: frozenset[str]
    as_list: frozenset[str]

    def to_row(self, fields: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return an entry's values in the form of the columns; what it lacks is None."""
        named = {column_name(name): value for name, value in fields.items()}
        return {name: self._to_value(name, named.get(name)) for name in self.types}

    def _to_value(self, name: str, value: JsonValue) -> JsonValue:
        if value is None:
            return None
        if name in self.as_json:
            return json.dumps(value, ensure_ascii=False)
        if name in self.as_list:
            return _listed(value)
        return value


def column_name(field: str) -> str:
    """Return the column of a metadata field; a name that the dataset itself uses gets a prefix."""
    return _PREFIX + field if field in RESERVED else field


def infer_columns(entries: Sequence[Mapping[str, JsonValue]]) -> MetadataColumns:
    """Find a type for every field that any entry has."""
    values: dict[str, list[JsonValue]] = {}
    for fields in entries:
        for name, value in fields.items():
            values.setdefault(column_name(name), []).append(value)
    types: dict[str, pa.DataType] = {}
    as_json, as_list = set[str](), set[str]()
    for name, found in values.items():
        if (kind := _infer(found)) is not None:
            types[name] = kind
        elif (kind := _infer([_listed(value) for value in found if value is not None])) is not None:
            types[name] = kind
            as_list.add(name)
        else:
            types[name] = pa.string()
            as_json.add(name)
    return MetadataColumns(types, frozenset(as_json), frozenset(as_list))


def _infer(values: Sequence[JsonValue]) -> pa.DataType | None:
    """Return the one type of the values, or None where Arrow has none that gives them back as they are."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [float(value) if isinstance(value, int) else value for value in values]
    try:
        array = pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError):
        return None
    # An object would get the keys of all others.
    is_kept = json.dumps(array.to_pylist()) == json.dumps(values)
    return _without_null(array.type) if is_kept and not _has_struct(array.type) else None


def _without_null(kind: pa.DataType) -> pa.DataType:
    """Return the type with text where nothing is known of the values."""
    if pa.types.is_list(kind):
        return pa.list_(_without_null(kind.value_type))
    return pa.string() if pa.types.is_null(kind) else kind


def _has_struct(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_struct(kind))


def _listed(value: JsonValue) -> JsonValue:
    return value if isinstance(value, list) else [value]
