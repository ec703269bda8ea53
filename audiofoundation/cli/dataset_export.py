"""`audiofoundation dataset export`: a platform's dataset as a folder that others read."""

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from audiofoundation.cli.client import DataDirOption, PlatformClient, UrlOption, path_to
from audiofoundation.cli.output import CommandError, JsonOption, create_progress, print_json, print_line

HELP = """Copy a platform's dataset to a folder.

webdataset: the shards as tar files, checked against their SHA-256; a sample is KEY.json, KEY.mel.npy and, of datasets
made with --with-waveform, KEY.wave.npy. audiocraft: the samples' audio as KEY.wav with a side KEY.json, and data.jsonl.
jsonl: no audio. Each has manifest.jsonl: a line per recording with its origin, licence, descriptors and shard. OUT is
replaced as a whole, and only if it was made by this command.

Examples:

  audiofoundation dataset export ds_0192f3 --out export

  audiofoundation dataset export ds_0192f3 --out music --format audiocraft
"""
_MANIFEST = "manifest.jsonl"


class ExportFormat(StrEnum):
    """What the folder holds."""

    WEBDATASET = "webdataset"
    JSONL = "jsonl"
    AUDIOCRAFT = "audiocraft"


def export(
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    format_: Annotated[ExportFormat, typer.Option("--format", help="What others read.")] = ExportFormat.WEBDATASET,
    is_json: JsonOption = False,
    url: UrlOption = None,
    data_dir: DataDirOption = None,
) -> None:
    from audiofoundation.interchange.staging import staged_folder

    with PlatformClient(url, data_dir=data_dir) as client:
        listed = client.get(path_to("datasets", dataset, "shards"))
        if format_ is ExportFormat.AUDIOCRAFT and not listed["has_waveform"]:
            raise CommandError("the dataset carries no audio: preprocess the collection with --with-waveform")
        with staged_folder(out) as stage:
            client.download(path_to("datasets", dataset, "manifest"), stage / _MANIFEST)
            num_samples = _write(client, listed, format_, stage, out.expanduser().resolve())
            if client.get(path_to("datasets", dataset, "shards"))["manifest_sha256"] != listed["manifest_sha256"]:
                raise CommandError("the dataset has changed meanwhile: run the command again")
            with (stage / _MANIFEST).open("rb") as lines:
                num_recordings = sum(1 for _ in lines)
            _describe(stage, listed, format_)
    counts = {"recordings": num_recordings, "samples": num_samples, "shards": len(listed["shards"])}
    if is_json:
        print_json({"dataset": listed["dataset"], "format": format_.value, **counts, "out": str(out)})
    else:
        print_line(f"{out}: {num_samples} samples of {num_recordings} recordings")


def _write(client: PlatformClient, listed: Mapping[str, Any], format_: ExportFormat, stage: Path, out: Path) -> int:
    """Write what the format asks for besides the manifest; return the number of samples."""
    if format_ is ExportFormat.JSONL:
        return sum(shard["segments"] for shard in listed["shards"])
    folder = stage / ("shards" if format_ is ExportFormat.WEBDATASET else "audio")
    folder.mkdir()
    if format_ is ExportFormat.AUDIOCRAFT:
        return _unpack(client, listed, stage, out)
    for shard, path in _fetched(client, listed, folder):
        path.rename(folder / f"{shard['index']:06d}.tar")
    return sum(shard["segments"] for shard in listed["shards"])


def _unpack(client: PlatformClient, listed: Mapping[str, Any], stage: Path, out: Path) -> int:
    """Write AudioCraft's files, a shard at a time; the manifest's lines lie in the shards' order."""
    from audiofoundation.interchange.audiocraft import read_recordings, unpack_shard

    groups = groupby(read_recordings(stage / _MANIFEST), key=lambda line: line.shard)
    num_samples = 0
    with (stage / "data.jsonl").open("w", encoding="utf-8") as sink:
        pending = next(groups, None)
        for shard, path in _fetched(client, listed, stage):
            lines = {}
            if pending is not None and pending[0] == shard["index"]:  # a shard may have lost all its recordings
                lines = {line.item_id: line for line in pending[1]}
                pending = next(groups, None)
            for row in unpack_shard(path, lines, stage / "audio", final=out / "audio"):
                sink.write(json.dumps(row, ensure_ascii=False) + "\n")
                num_samples += 1
            path.unlink()
    return num_samples


def _fetched(client: PlatformClient, listed: Mapping[str, Any], folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yield each shard's record with its file, which is checked and the caller's to move or remove."""
    from audiofoundation.identifiers import sha256_of_stream

    path = folder / "shard.part"
    with create_progress() as progress:
        for shard in progress.track(listed["shards"], description="shards"):
            client.download(shard["url"], path)
            with path.open("rb") as stream:
                if sha256_of_stream(stream) != shard["sha256"]:
                    raise CommandError(f"shard {shard['index']} did not arrive as it is stored: run the command again")
            yield shard, path


def _describe(stage: Path, listed: Mapping[str, Any], format_: ExportFormat) -> None:
    """Write what the folder is and which version of the dataset it holds."""
    from audiofoundation.interchange.staging import FORMAT, FORMAT_KEY, MARKER
    from audiofoundation.interchange.summary import utc_now

    about = {FORMAT_KEY: FORMAT, "format_version": 1, "export_format": format_.value, "created_at": utc_now(), **listed}
    (stage / MARKER).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
