"""`audiofoundation up`: the whole platform on one machine."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from audiofoundation.cli.output import note

_HELP = """Run the whole platform on this machine until Ctrl-C.

Starts a queue server, an S3 server, a catalog, the API and the workers as child processes, keeps them alive
and keeps all data and secrets in one directory. Servers that the environment names (AF_STORAGE__ENDPOINT,
AF_QUEUE__URL, AF_CATALOG__URL) are used in place of embedded ones.

Examples:

  audiofoundation up

  audiofoundation up --data-dir ./platform --port 0 --grpc-port 0 --ready-file ready.json

  curl -H "Authorization: Bearer $(jq -r .api_key ready.json)" $(jq -r .url ready.json)/v1/models
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", help=_HELP)(up)


def up(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="AF_DATA_DIR",
            file_okay=False,
            help="Where everything is kept; the user's data directory by default.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 picks a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="gRPC port; 0 picks a free one.")] = 50051,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Written when everything is ready: JSON with url, grpc, s3, redis, api_key, pid."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Shards made at the same time; by default one less than there are CPUs."),
    ] = None,
) -> None:
    from audiofoundation.embedded.plan import UpOptions
    from audiofoundation.embedded.stack import run_platform
    from audiofoundation.settings import Settings, find_misspelt

    settings = Settings()
    for words in find_misspelt(os.environ):
        _announce(words)
    if data_dir is not None:
        settings = settings.model_copy(update={"data_dir": data_dir})
    options = UpOptions(
        host=host,
        port=port,
        grpc_port=grpc_port,
        num_workers=workers,
        ready_file=ready_file.absolute() if ready_file else None,
    )
    run_platform(settings, options, announce=_announce)


def _announce(text: str) -> None:
    note(f"{time.strftime('%H:%M:%S')}  {text}")
