"""Ids sort as they were made, and are what RFC 9562 calls version 7."""

import uuid

from audiofoundation.identifiers import create_id


def test_ids_of_one_process_sort_as_they_were_made() -> None:
    ids = [create_id("job") for _ in range(2000)]

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_an_id_is_a_uuid_of_version_seven() -> None:
    made = uuid.UUID(create_id("item").removeprefix("item_"))

    assert (made.version, made.variant) == (7, uuid.RFC_4122)
