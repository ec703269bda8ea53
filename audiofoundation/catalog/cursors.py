"""Where a page of a list starts: behind the row whose id is the cursor."""

import re

from audiofoundation.errors import InvalidRequest


def check_cursor(cursor: str | None, *, prefix: str) -> str:
    """Return the id behind which a page starts; empty for the first page.

    Args:
        cursor: what the client sent.
        prefix: of the list's ids, such as `item`.

    Raises:
        InvalidRequest: it is no such id. Behind it would be nothing, which looks like the end of the list.
    """
    if cursor and not re.fullmatch(rf"{prefix}_[0-9a-f]{{32}}", cursor):
        raise wrong_cursor(cursor)
    return cursor or ""


def wrong_cursor(cursor: str) -> InvalidRequest:
    """Return the error for a cursor that this list never gave."""
    words = "is none of this list: take `next_cursor` of the page before, or none for the first page"
    return InvalidRequest(f"the cursor {cursor[:80]!r} {words}", param="cursor")
