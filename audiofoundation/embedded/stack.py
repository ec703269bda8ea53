"""The one-machine platform: start in order, keep alive, stop in order."""

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from audiofoundation.catalog.engine import create_catalog_engine, migrate
from audiofoundation.embedded.child import Announce, Child, ChildSpec
from audiofoundation.embedded.credentials import load_credentials
from audiofoundation.embedded.data_directory import DataDirectory
from audiofoundation.embedded.instance_lock import instance_lock
from audiofoundation.embedded.log_file import LogFile
from audiofoundation.embedded.plan import Addresses, Plan, UpOptions, create_plan
from audiofoundation.embedded.private_file import write_private
from audiofoundation.embedded.process_table import STACK_ROOT, kill_all, parents, processes_with
from audiofoundation.embedded.spawn import adopt_orphans
from audiofoundation.errors import DeadlineExceeded
from audiofoundation.settings import Settings
from audiofoundation.storage.object_store import ObjectStore

_START_TIMEOUT_S = 240.0
_REAP_INTERVAL_S = 2.0


def run_platform(settings: Settings, options: UpOptions, *, announce: Announce) -> None:
    """Run the platform on `settings.data_dir` until SIGINT or SIGTERM. Call it from the main thread.

    Raises:
        Conflict: another platform runs on this data directory, or a wanted port is taken.
        InternalError: a child does not start.
        DeadlineExceeded: the platform was not ready in time.
    """
    directory = DataDirectory.open(settings.data_dir)
    with instance_lock(directory.lock):
        ready_files = [directory.ready, *([options.ready_file] if options.ready_file else [])]
        _forget(ready_files)
        _end_leftovers(directory, announce)
        credentials = load_credentials(directory.secrets)
        plan = create_plan(settings, options, directory=directory, credentials=credentials)
        adopt_orphans()
        try:
            asyncio.run(_Stack(plan, directory=directory, announce=announce).run(ready_files))
        finally:
            _forget(ready_files)
            for listener in plan.listeners:
                listener.close()


def _forget(ready_files: Sequence[Path]) -> None:
    for path in ready_files:
        path.unlink(missing_ok=True)


def _end_leftovers(directory: DataDirectory, announce: Announce) -> None:
    """Kill what an earlier platform on this directory left running: we hold its lock, so it is dead."""
    left = processes_with(STACK_ROOT, lambda root: root == str(directory.root))
    ancestors = _ancestors()
    left = [pid for pid in left if pid not in ancestors]
    if left:
        announce(f"ending {len(left)} processes that an earlier platform left behind")
        kill_all(left)


def _ancestors() -> set[int]:
    parent_of = parents()
    found, pid = set(), os.getpid()
    while (pid := parent_of.get(pid, 0)) > 1:
        found.add(pid)
    return found


class _Stack:
    """The children of one plan."""

    def __init__(self, plan: Plan, *, directory: DataDirectory, announce: Announce) -> None:
        self._plan = plan
        self._directory = directory
        self._announce = announce
        self._servers = [self._create(spec) for spec in plan.servers]
        self._services = [self._create(spec) for spec in plan.services]

    async def run(self, ready_files: Sequence[Path]) -> None:
        """Start everything, write the ready files, wait for a signal, stop everything."""
        stop = asyncio.Event()
        self._handle_signals(stop)
        num_children = len(self._servers) + len(self._services)
        self._announce(f"starting {num_children} processes on {self._directory.root}")
        try:
            if await self._start_unless(stop):
                for path in ready_files:
                    write_ready_file(path, self._plan.addresses)
                self._announce_addresses()
                await self._reap_until(stop)
        finally:
            _forget(ready_files)
            self._announce("stopping")
            await self._stop()
            self._announce("stopped")

    async def _start_unless(self, stop: asyncio.Event) -> bool:
        """Start; return False when told to stop before everything was ready."""
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED, timeout=_START_TIMEOUT_S)
        stopping.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        await asyncio.wait({starting})
        if not stop.is_set():
            raise DeadlineExceeded(
                f"the platform was not ready in {_START_TIMEOUT_S:.0f} s; see {self._directory.logs}"
            )
        return False

    async def _start(self) -> None:
        servers = [asyncio.create_task(child.start()) for child in self._servers]
        await asyncio.sleep(0)  # both servers start while this process migrates the catalog
        migrate(create_catalog_engine(self._plan.catalog))
        await asyncio.gather(*servers)
        ObjectStore(self._plan.storage).ensure_bucket()
        await asyncio.gather(*(child.start() for child in self._services))

    async def _stop(self) -> None:
        """Services first, so that what they still commit finds its servers."""
        guardians = [child for child in self._services if child.spec.can_outlive_us]
        services = [child for child in self._services if not child.spec.can_outlive_us]
        for group in (services, self._servers, guardians):
            await asyncio.gather(*(child.stop() for child in group))
        self._end_orphans()

    async def _reap_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._end_orphans()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _REAP_INTERVAL_S)

    def _end_orphans(self) -> None:
        """End and reap processes that came to us because the child that had started them died."""
        known = {child.pid for child in (*self._servers, *self._services)}
        orphans = [pid for pid, parent in parents().items() if parent == os.getpid() and pid not in known]
        kill_all(orphans)
        for pid in orphans:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _handle_signals(self, stop: asyncio.Event) -> None:
        def on_signal() -> None:
            if stop.is_set():  # asked twice: no more patience
                for child in (*self._services, *self._servers):
                    child.kill()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, on_signal)

    def _create(self, spec: ChildSpec) -> Child:
        log = LogFile(self._directory.logs / f"{spec.name.replace(' ', '-')}.log")
        return Child(spec, log=log, announce=self._announce)

    def _announce_addresses(self) -> None:
        addresses = self._plan.addresses
        self._announce(f"ready: {addresses.url} (gRPC {addresses.grpc}), logs in {self._directory.logs}")


def write_ready_file(path: Path, addresses: Addresses) -> None:
    """Write the addresses in one step, for its owner only: they contain the key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps(dataclasses.asdict(addresses)) + "\n")
