"""Inserting many rows at once, those that are there already left as they are."""

from collections.abc import Mapping, Sequence

from sqlalchemy import JSON, ColumnElement, String, Table, any_, bindparam, column, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from audiofoundation.catalog.tables import Base


def insert_new(
    session: Session, model: type[Base], rows: Sequence[Mapping[str, object]], *, unique: Sequence[str]
) -> set[str]:
    """Insert the rows that are new and return their ids.

    On PostgreSQL all rows travel as one JSON parameter: its driver reads the text of a statement with a
    placeholder for each value of each row, which took three quarters of the time.

    Args:
        session: a write session.
        model: the table; its key is `id`.
        rows: equal sets of columns with values that JSON knows.
        unique: the columns that tell what is there already.
    """
    if not rows:
        return set()
    connection, table = session.connection(), model.__table__
    assert isinstance(table, Table)
    if connection.dialect.name != "postgresql":
        adding = sqlite.insert(table).on_conflict_do_nothing(index_elements=unique).returning(table.c.id)
        return set(connection.execute(adding, rows).scalars())
    names = list(rows[0])
    record = (
        func.json_to_recordset(bindparam("rows", type_=JSON))
        .table_valued(*(column(name, table.c[name].type) for name in names), name="new")
        .render_derived(with_types=True)
    )
    adding_all = postgresql.insert(table).from_select(names, select(*(record.c[name] for name in names)))
    statement = adding_all.on_conflict_do_nothing(index_elements=unique).returning(table.c.id)
    return set(connection.execute(statement, {"rows": list(rows)}).scalars())


def is_one_of(session: Session, wanted: InstrumentedAttribute[str], values: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a column has one of (up to 10 000) values; one parameter on PostgreSQL."""
    if session.get_bind().dialect.name != "postgresql":
        return wanted.in_(values)
    return wanted == any_(literal(list(values), postgresql.ARRAY(String)))
