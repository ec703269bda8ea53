"""A folder of recordings with metadata becomes a dataset on disk that `datasets` and `transformers` read."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from audiofoundation.errors import AudioFoundationError, FeatureFailed, InvalidRequest
from audiofoundation.features.custom import FeatureLengths
from audiofoundation.identifiers import sha256_of_stream
from audiofoundation.interchange.columns import MetadataColumns, infer_columns
from audiofoundation.interchange.figures import SamplePicture, draw_sample
from audiofoundation.interchange.hf_folder import RowWriter, save_folders
from audiofoundation.interchange.listing import Entry, JsonValue, Listing, Skipped, read_listing
from audiofoundation.interchange.lookahead import run_ahead
from audiofoundation.interchange.samples import ProcessedSample, SampleProcessor
from audiofoundation.interchange.split import choose_validation
from audiofoundation.interchange.staging import FORMAT, FORMAT_KEY, MARKER, staged_folder
from audiofoundation.interchange.summary import DatasetSummary, package_versions, utc_now

FORMAT_VERSION = 1
_ROWS = "rows.arrow"
_MAX_REASONS = 5
_MAX_FACTS = 8  # fields of metadata that a picture has room for
_UNITS = {
    "duration": " s",
    "tempo": " BPM",
    "spectral_centroid": " Hz",
    "spectral_bandwidth": " Hz",
    "spectral_rolloff": " Hz",
}
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a dataset is laid out.

    Attributes:
        validation_share: part of the samples, in [0, 1), that validates; rounded up, but one sample always trains.
        num_pictures: samples that get a picture, from the first.
    """

    validation_share: float = 0.1
    num_pictures: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"the validation share must be at least 0 and below 1, not {self.validation_share:g}")
        if self.num_pictures < 0:
            raise ValueError(f"the number of pictures cannot be {self.num_pictures}")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What became of a folder.

    Attributes:
        out: where the dataset lies.
        num_train, num_validation: samples in each part.
        skipped: what became no sample, each with its reason.
        unlisted: files in `audio/` that the metadata does not name.
        damaged: samples whose files did not decode to their end, each with what was wrong.
    """

    out: Path
    num_train: int
    num_validation: int
    skipped: tuple[Skipped, ...]
    unlisted: tuple[str, ...]
    damaged: tuple[Skipped, ...]


@dataclass(slots=True)
class _Build:
    """A build in progress."""

    processor: SampleProcessor
    options: BuildOptions
    listing: Listing
    columns: MetadataColumns
    stage: Path
    summary: DatasetSummary = field(default_factory=DatasetSummary)
    skipped: list[Skipped] = field(default_factory=list)
    damaged: list[Skipped] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)  # of the samples' files, in order
    lengths: FeatureLengths = field(default_factory=FeatureLengths)
    failures: Counter[str] = field(default_factory=Counter)  # files skipped by the feature that failed


def build_folder(
    processor: SampleProcessor,
    folder: Path,
    out: Path,
    *,
    options: BuildOptions,
    on_progress: OnProgress | None = None,
) -> BuildReport:
    """Build a dataset from `folder/audio/` and `folder/metadata.json`.

    `out` appears whole or not at all, and replaces an earlier one of ours. What cannot be used is skipped.

    Args:
        processor: makes the samples.
        folder: what to read.
        out: what to write: `processed_dataset/`, `train_val_split/`, `visualizations/`, `dataset_summary.json`,
            `processing_metadata.json`.
        options: the layout.
        on_progress: called with the entries done and their number.

    Raises:
        InvalidRequest: the folder has no readable metadata, or nothing in it gives a sample.
        Conflict: `out` holds something that we did not make, or is being written.
        OSError: it cannot be written.
    """
    listing = read_listing(folder)
    columns = infer_columns([entry.fields for entry in listing.entries])
    with staged_folder(out, source=folder) as stage:
        build = _Build(processor, options, listing, columns, stage, skipped=list(listing.skipped))
        (stage / "visualizations").mkdir()
        _write_rows(build, on_progress or (lambda _done, _total: None))
        if not build.hashes:
            raise InvalidRequest(f"Nothing in {folder} can be used: {_why_nothing(build)}")
        validation = choose_validation(list(build.hashes), share=options.validation_share)
        rows = stage / _ROWS
        save_folders(rows, stage / "processed_dataset", stage / "train_val_split", validation=validation)
        rows.unlink()
        num_validation = len(validation)
        summary = build.summary.to_json(num_validation=num_validation, num_skipped=len(build.skipped))
        _write_json(stage / "dataset_summary.json", summary)
        _write_json(stage / MARKER, _metadata(build, folder))
    return BuildReport(
        out=out,
        num_train=build.summary.num_samples - num_validation,
        num_validation=num_validation,
        skipped=tuple(build.skipped),
        unlisted=listing.unlisted,
        damaged=tuple(build.damaged),
    )


def _write_rows(build: _Build, on_progress: OnProgress) -> None:
    total = len(build.listing.entries)
    on_progress(0, total)
    with (
        RowWriter(build.stage / _ROWS) as writer,
        closing(run_ahead(partial(_process, build.processor), build.listing.entries)) as processed,
    ):
        for done, (entry, found) in enumerate(processed, start=1):
            try:
                _write_sample(build, entry, *found.result(), writer)
            except AudioFoundationError as error:
                build.skipped.append(Skipped(entry.file, error.message))
                if isinstance(error, FeatureFailed):
                    build.failures[error.feature] += 1
            on_progress(done, total)


def _process(processor: SampleProcessor, entry: Entry) -> tuple[str, ProcessedSample]:
    """Return the content hash of an entry's file and its sample; runs beside others."""
    return _hash_file(entry.path), processor.process(entry.path, entry.text)


def _write_sample(build: _Build, entry: Entry, digest: str, sample: ProcessedSample, writer: RowWriter) -> None:
    """Append a sample. Raises InvalidRequest, whose message is the reason to skip it."""
    if digest in build.hashes:
        # In both parts of the split it would let validation see what was trained on.
        raise InvalidRequest(f"The file holds the same bytes as {build.hashes[digest]!r}.")
    build.lengths.admit({**sample.scalars, **sample.vectors})
    types = {**build.columns.types, **build.processor.arrow_types(sample)}
    writer.write({**build.columns.to_row(entry.fields), **sample.to_row()}, types)
    build.hashes[digest] = entry.file
    build.summary.add(entry.fields, sample.scalars)
    if sample.damage is not None:
        build.damaged.append(Skipped(entry.file, sample.damage))
    if writer.num_rows <= build.options.num_pictures:
        name = f"sample_{writer.num_rows - 1}_features.png"
        draw_sample(_to_picture(entry, sample), build.stage / "visualizations" / name)


def _to_picture(entry: Entry, sample: ProcessedSample) -> SamplePicture:
    facts = [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in entry.fields.items()
        if name not in ("text", "audio_file") and value is not None
    ]
    measured = [(name, f"{value:.4g}{_UNITS.get(name, '')}") for name, value in sample.scalars.items()]
    lines = [*facts[:_MAX_FACTS], ("", ""), *measured]
    return SamplePicture(entry.file, entry.text, sample.samples, sample.sample_rate_hz, lines)


def _metadata(build: _Build, folder: Path) -> dict[str, JsonValue]:
    """Return `processing_metadata.json`."""
    processor = build.processor
    return {
        FORMAT_KEY: FORMAT,
        "format_version": FORMAT_VERSION,
        "created_at": utc_now(),
        "source": str(folder.resolve()),
        "settings": {
            **asdict(processor.conditioning),
            **asdict(build.options),
            "targets": [dict(target.settings) for target in processor.targets],
            "custom_features": list(processor.functions),
        },
        "versions": package_versions(),
        "columns_as_json": sorted(build.columns.as_json),
        "columns_as_list": sorted(build.columns.as_list),
        "skipped": [asdict(skip) for skip in build.skipped],
        "damaged": [asdict(skip) for skip in build.damaged],
        "unlisted": list(build.listing.unlisted),
        "files": [{"file": file, "sha256": digest} for digest, file in build.hashes.items()],
    }


def _write_json(path: Path, value: Mapping[str, JsonValue]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _hash_file(path: Path) -> str:
    """Return the SHA-256. Raises InvalidRequest when the file cannot be read."""
    try:
        with path.open("rb") as stream:
            return sha256_of_stream(stream)
    except OSError as error:
        raise InvalidRequest(f"The file cannot be read: {error.strerror}.") from error


def _why_nothing(build: _Build) -> str:
    if not build.skipped:
        return "its metadata lists nothing."
    shown = [f"{one.file}: {one.reason}" for one in build.skipped[:_MAX_REASONS]]
    num_more = len(build.skipped) - len(shown)
    reason = " ".join(shown) + (f" ({num_more} more were skipped)" if num_more else "")
    if not build.failures:
        return reason
    feature, count = build.failures.most_common(1)[0]
    share = f"{count} of {len(build.skipped)} recordings"
    return f"the feature {feature!r} failed with {share}, so look at its function; {reason}"
