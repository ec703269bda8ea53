"""The agreement between the collector and whoever writes an object under a key that may lie there already.

The collector deletes an object only while it holds the row of its mark, which is a day old; a writer forgets the mark
before it writes. So either the deletion comes first and the object is written afterwards, or there is no deletion.
On SQLite nobody else writes meanwhile: the deletion is tried once, for some seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, delete, select

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import OrphanMark


def forget_mark(engine: Engine, *keys: str) -> None:
    """Have the collector leave alone what is about to be written; it waits for a deletion that is under way."""
    is_one = OrphanMark.key.in_(keys)
    with read_session(engine) as session:
        if not session.scalars(select(OrphanMark.key).where(is_one)).all():
            return
    with write_session(engine) as session:
        session.execute(delete(OrphanMark).where(is_one))


@contextmanager
def deleting_marked(engine: Engine, key: str) -> Iterator[bool]:
    """Yield whether the object is still marked; it stays so until the block ends, and is not marked afterwards."""
    with write_session(engine) as session:
        locked = select(OrphanMark).where(OrphanMark.key == key).with_for_update()
        mark = session.scalars(locked).one_or_none()
        yield mark is not None
        if mark is not None:
            session.delete(mark)
