"""Roles that one process at a time may have: a named row of `leases`, held while it is renewed.

A turn is a role of another kind: a row that says when something is to be done next, and by one process.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine, delete, update
from sqlalchemy.dialects import postgresql, sqlite

from audiofoundation.catalog.engine import read_session, write_session
from audiofoundation.catalog.tables import Lease
from audiofoundation.errors import Conflict, LeaseLost
from audiofoundation.jobs.owner import create_lease_owner, current_owner

LEASE_S = 120.0  # how long a holder that was killed keeps the others out
_RENEW_AFTER_S = LEASE_S / 4


@dataclass(slots=True)
class Role:
    """A role that is held; `renew` it on the way."""

    engine: Engine
    name: str
    owner: str
    renewed_at: float = field(default_factory=time.monotonic)

    def renew(self) -> None:
        """Extend the lease now and then. Raises LeaseLost when another has the role by now."""
        if time.monotonic() - self.renewed_at < _RENEW_AFTER_S:
            return
        held = (Lease.name == self.name) & (Lease.owner == self.owner)
        renewing = update(Lease).where(held).values(lease_until=time.time() + LEASE_S).returning(Lease.name)
        with write_session(self.engine) as session:
            if session.execute(renewing).one_or_none() is None:
                raise LeaseLost(f"another process is the {self.name} now")
        self.renewed_at = time.monotonic()


@contextmanager
def holding_role(engine: Engine, name: str) -> Iterator[Role]:
    """Hold the role.

    Raises:
        Conflict: another holds it.
    """
    role = Role(engine, name, create_lease_owner(current_owner()))
    now = time.time()
    with write_session(engine) as session:
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        adding = insert(Lease).values(name=name, owner=role.owner, lease_until=now + LEASE_S)
        taking = adding.on_conflict_do_update(
            index_elements=["name"],
            set_={"owner": adding.excluded.owner, "lease_until": adding.excluded.lease_until},
            where=Lease.lease_until < now,
        )
        if session.execute(taking.returning(Lease.name)).one_or_none() is None:
            raise Conflict(f"the {name} is already running; ask again when it has finished")
    try:
        yield role
    finally:
        with write_session(engine) as session:
            session.execute(delete(Lease).where(Lease.name == name, Lease.owner == role.owner))


def take_turn(engine: Engine, name: str, *, every_s: float) -> bool:
    """Return whether this process is to do it now; the next turn comes `every_s` later, whoever asks then.

    The first turn comes `every_s` after anybody has asked, and none later than that after the interval was shortened.
    """
    now = time.time()
    with read_session(engine) as session:
        row = session.get(Lease, name)
        due = None if row is None else row.lease_until
    if due is not None and now < due <= now + every_s:
        return False
    next_row = {"owner": current_owner(), "lease_until": now + every_s}
    with write_session(engine) as session:
        if due is None:
            insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
            session.execute(insert(Lease).values(name=name, **next_row).on_conflict_do_nothing())
            return False
        # Of those who saw the same turn, one finds it still there.
        taking = update(Lease).where(Lease.name == name, Lease.lease_until == due).values(**next_row)
        is_mine = session.execute(taking.returning(Lease.name)).one_or_none() is not None
    return is_mine and due <= now


def come_again(engine: Engine, name: str, *, in_s: float) -> None:
    """Let the next turn come then: this one came to nothing."""
    with write_session(engine) as session:
        session.execute(update(Lease).where(Lease.name == name).values(lease_until=time.time() + in_s))
