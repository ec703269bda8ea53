"""Renewing the leases of running jobs, from one thread per process.

A thread per job would cost a small job more than its work: three switches between threads on a busy machine.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from audiofoundation.errors import LeaseLost, StorageUnavailable
from audiofoundation.jobs.lease import Claim, renew
from audiofoundation.settings import JobSettings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    engine: Engine
    claim: Claim
    settings: JobSettings


class _Heartbeat:
    """The claims that this process works on. Its thread ends when there are none."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._is_beating = False

    def add(self, held: _Held) -> None:
        with self._lock:
            self._held[held.claim.owner] = held
            if self._is_beating:
                return
            self._is_beating = True
        interval_s = held.settings.heartbeat_s
        threading.Thread(target=self._beat, args=(interval_s,), name="heartbeat", daemon=True).start()

    def remove(self, held: _Held) -> None:
        with self._lock:
            self._held.pop(held.claim.owner, None)

    def _beat(self, interval_s: float) -> None:
        while True:
            time.sleep(interval_s)
            with self._lock:
                all_held = list(self._held.values())
                if not all_held:
                    self._is_beating = False
                    return
            for held in all_held:
                self._renew(held)

    def _renew(self, held: _Held) -> None:
        try:
            renew(held.engine, held.claim, settings=held.settings)
        except LeaseLost:
            self.remove(held)  # the commit finds out; the job may also have just ended
        except StorageUnavailable as error:
            _log.warning("job_heartbeat_missed", job_id=held.claim.job_id, error=error.message)


_heartbeat = _Heartbeat()


@contextmanager
def heartbeat(engine: Engine, claim: Claim, settings: JobSettings) -> Iterator[None]:
    """Renew the claim's lease every `heartbeat_s`, until the block ends or the lease is lost."""
    global _heartbeat
    if _heartbeat.pid != os.getpid():
        _heartbeat = _Heartbeat()  # the parent's thread did not survive the fork
    current, held = _heartbeat, _Held(engine, claim, settings)
    current.add(held)
    try:
        yield
    finally:
        current.remove(held)
