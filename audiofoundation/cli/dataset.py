"""`audiofoundation dataset`: the datasets that there are, and the forms of them that others read."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiofoundation.cli import dataset_export, dataset_report, listings
from audiofoundation.cli.output import (
    CommandError,
    JsonOption,
    create_progress,
    note,
    print_json,
    print_line,
    print_table,
)

if TYPE_CHECKING:  # torch, pyarrow and transformers load only when a command runs
    from audiofoundation.interchange.build import BuildReport
    from audiofoundation.interchange.pipeline import AudioPreprocessingPipeline

_BUILD_HELP = """Make a Hugging Face dataset of DIR/audio/ and DIR/metadata.json; no platform is needed.

The metadata is a list of objects with `audio_file` (in audio/), `text` and any more. Every recording is decoded, mixed
to mono at 32 kHz, trimmed, cut to 30 s, brought to full scale and described. What cannot be used is skipped, with the
reason. OUT is replaced as a whole, and only if it was made by this command.

Examples:

  audiofoundation dataset build recordings/ --out dataset

  audiofoundation dataset build recordings/ --out dataset --target musicgen,whisper --musicgen-model musicgen-small/
"""
_PACKAGES = ("datasets", "matplotlib", "pyarrow", "torch", "transformers")
_TARGETS = ("musicgen", "whisper")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="List datasets, report on them, and bring them into the forms that others read.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list", help=listings.DATASETS_HELP)(listings.list_datasets)
    group.command("build", help=_BUILD_HELP)(build)
    group.command("export", help=dataset_export.HELP)(dataset_export.export)
    group.command("report", help=dataset_report.HELP)(dataset_report.report)
    app.add_typer(group, name="dataset")


def build(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Holds audio/ and metadata.json.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    target: Annotated[
        str | None,
        typer.Option(help="musicgen,whisper or one of them; default: whisper, and musicgen with a model."),
    ] = None,
    val_split: Annotated[float, typer.Option(min=0.0, max=0.99, help="Part of the samples that validates.")] = 0.1,
    musicgen_model: Annotated[
        Path | None, typer.Option(help="Directory of a MusicGen model.", exists=True, file_okay=False)
    ] = None,
    whisper_bands: Annotated[int, typer.Option(help="Mel bands of Whisper's features: 80 or 128.")] = 80,
    plots: Annotated[int, typer.Option(min=0, help="Samples that get a picture, from the first.")] = 20,
    is_json: JsonOption = False,
) -> None:
    targets = _targets(target, musicgen_model)
    if whisper_bands not in (80, 128):
        raise typer.BadParameter("Whisper has 80 or 128 mel bands.", param_hint="--whisper-bands")
    pipeline = _create_pipeline(
        musicgen_model if "musicgen" in targets else None, whisper_bands if "whisper" in targets else None
    )
    with create_progress() as progress:
        task = progress.add_task("processing", total=None)
        report = pipeline.build_dataset(
            folder,
            out,
            val_split=val_split,
            num_plots=plots,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    _report(report, is_json=is_json)


def _targets(target: str | None, musicgen_model: Path | None) -> frozenset[str]:
    if target is None:
        return frozenset({"whisper"} if musicgen_model is None else _TARGETS)
    names = frozenset(name.strip() for name in target.split(",") if name.strip())
    if not names or not names <= set(_TARGETS):
        raise typer.BadParameter(f"choose of {', '.join(_TARGETS)}, with a comma between.", param_hint="--target")
    if "musicgen" in names and musicgen_model is None:
        raise typer.BadParameter(
            "MusicGen's features need its tokenizer and audio encoder: give the directory with --musicgen-model.",
            param_hint="--target",
        )
    return names


def _create_pipeline(model: Path | None, whisper_bands: int | None) -> "AudioPreprocessingPipeline":
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise CommandError(f"{' and '.join(missing)} must be installed: pip install 'audiofoundation[datasets]'")
    from audiofoundation.interchange.pipeline import AudioPreprocessingPipeline

    return AudioPreprocessingPipeline(model_name=model, whisper_bands=whisper_bands)


def _report(report: "BuildReport", *, is_json: bool) -> None:
    for damage in report.damaged:
        note(f"warning: {damage.file} is damaged, what decodes of it was taken: {damage.reason}")
    if report.unlisted:
        shown = ", ".join(report.unlisted[:5]) + (" …" if len(report.unlisted) > 5 else "")
        note(f"warning: the metadata does not name {len(report.unlisted)} of the files in audio/: {shown}")
    num_samples = report.num_train + report.num_validation
    if is_json:
        print_json(
            {
                "samples": num_samples,
                "train": report.num_train,
                "validation": report.num_validation,
                "skipped": [{"file": skip.file, "reason": skip.reason} for skip in report.skipped],
                "out": str(report.out),
            }
        )
        return
    print_line(f"{report.out}: {num_samples} samples, {report.num_train} train and {report.num_validation} validate")
    if report.skipped:
        print_table(("skipped", "reason"), [(skip.file, skip.reason) for skip in report.skipped])
