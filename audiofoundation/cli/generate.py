"""Commands that need no platform: continue a recording, classify it, copy it through a vocoder."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiofoundation.cli.output import (
    CommandError,
    JsonOption,
    JsonValue,
    PlainProgress,
    create_progress,
    note,
    print_json,
    print_line,
    print_table,
)

if TYPE_CHECKING:  # torch and the audio libraries load only when a command runs
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from audiofoundation.audio.decode import Decoded
    from audiofoundation.audio.encode import AudioFormat
    from audiofoundation.inference.model_store import ModelStore

_MAX_AUDIO_S = 14_400.0
_MAX_BYTES = 4 << 30
_MAX_GENERATED_S = 3600.0

_In = Annotated[Path, typer.Argument(help="A recording, any format.", exists=True, dir_okay=False)]
_Out = Annotated[Path, typer.Option("--output", "-o", help="Where to write: .wav .flac .mp3 .opus or .pcm.")]
_Model = Annotated[str | None, typer.Option(help="A model's name or a .safetensors file; default: the best at hand.")]
_Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same samples.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("continue")(continue_)
    app.command()(classify)
    app.command()(vocode)


def continue_(
    source: _In,
    output: _Out,
    duration: Annotated[float, typer.Option(help="Seconds to generate.")] = 5.0,
    seed: _Seed = 0,
    temperature: Annotated[float | None, typer.Option(help="Spread of the sampling, 0 to 2.")] = None,
    model: _Model = None,
    include_prompt: Annotated[bool, typer.Option("--include-prompt", help="Begin with the prompt.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Continue a recording."""
    from audiofoundation.inference.engine import Continuation, collect
    from audiofoundation.inference.request import ContinuationRequest

    fmt = _format_of(output)
    loaded = _store().continuation_model(model)
    decoded = _read(source, loaded.mel_config.sample_rate_hz)
    request = ContinuationRequest(
        prompt=decoded.waveform,
        duration_s=duration,
        temperature=temperature,
        seed=seed,
        include_prompt=include_prompt,
    )
    continuation = Continuation(request, loaded, max_generated_s=_MAX_GENERATED_S)
    samples = collect(_shown(continuation.blocks(), duration, continuation.sample_rate_hz))
    _write(output, fmt, samples, continuation.sample_rate_hz)
    duration_s = samples.size / continuation.sample_rate_hz
    if as_json:
        print_json(
            {
                "output": str(output),
                "duration": duration_s,
                "sample_rate": continuation.sample_rate_hz,
                "model": continuation.model_version,
                "seed": seed,
                "seam_score": continuation.seam_score,
                "input_damage": decoded.damage,
            }
        )
    else:
        print_line(f"{output}: {duration_s:.2f} s by {continuation.model_version}")


def _shown(blocks: "Iterator[NDArray[np.float32]]", duration_s: float, rate_hz: int) -> "Iterator[NDArray[np.float32]]":
    """Yield the blocks and say how far they are."""
    num_samples, whole_s, plain = 0, round(duration_s), PlainProgress()
    with create_progress() as progress:
        task = progress.add_task("generating, seconds", total=whole_s)
        for block in blocks:
            yield block
            num_samples += block.size
            done_s = min(num_samples // rate_hz, whole_s)  # a prompt that is included counts, too
            progress.update(task, completed=done_s)
            plain.say(f"generated {done_s} of {whole_s} s")


def classify(source: _In, model: _Model = None, as_json: JsonOption = False) -> None:
    """Say what a recording holds."""
    from audiofoundation.inference.classification import classify as classify_waveform

    loaded = _store().classifier_model(model)
    decoded = _read(source, loaded.mel_config.sample_rate_hz)
    result = classify_waveform(decoded.waveform, loaded)
    if as_json:
        detections: list[JsonValue] = [
            {"index": found.index, "label": found.label, "score": found.score} for found in result.detections
        ]
        print_json({"model": result.model_version, "detections": detections, "input_damage": decoded.damage})
    else:
        rows = [(found.label, f"{found.score:.3f}") for found in result.detections]
        print_table(("label", "score"), rows)


def vocode(
    source: _In,
    output: _Out,
    vocoder: Annotated[
        str | None,
        typer.Option(help="griffinlim, griffinlim-streaming or a trained one; default: the best streaming one."),
    ] = None,
    seed: _Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn a recording into mel frames and back: what a vocoder makes of it."""
    from audiofoundation.inference.copy_synthesis import copy_synthesis
    from audiofoundation.inference.vocoders import DEFAULT_VOCODER, create_weightless

    fmt = _format_of(output)
    name = vocoder or DEFAULT_VOCODER
    loaded = create_weightless(name) or _store().vocoder(name)
    rate_hz = loaded.mel_config.sample_rate_hz
    decoded = _read(source, rate_hz)
    samples = copy_synthesis(decoded.waveform, loaded, seed=seed)
    _write(output, fmt, samples, rate_hz)
    duration_s = samples.size / rate_hz
    if as_json:
        print_json(
            {
                "output": str(output),
                "duration": duration_s,
                "sample_rate": rate_hz,
                "vocoder": loaded.name,
                "input_damage": decoded.damage,
            }
        )
    else:
        print_line(f"{output}: {duration_s:.2f} s by {loaded.name}")


def _store() -> "ModelStore":
    """Return the models that came with the software; a command needs no catalog."""
    import structlog

    from audiofoundation.inference.model_store import ModelStore
    from audiofoundation.settings import Settings

    # Standard output belongs to the result.
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    return ModelStore(Settings().models, allow_paths=True)


def _format_of(output: Path) -> "AudioFormat":
    from audiofoundation.audio.encode import AudioFormat

    suffix = output.suffix.removeprefix(".").lower()
    if suffix not in {fmt.value for fmt in AudioFormat}:
        known = ", ".join(f".{fmt.value}" for fmt in AudioFormat)
        raise CommandError(f"the output's name must end in one of {known}, not {output.suffix or 'nothing'}")
    if not output.parent.is_dir():
        raise CommandError(f"there is no folder {output.parent}; make it first")
    return AudioFormat(suffix)


def _read(source: Path, rate_hz: int) -> "Decoded":
    from audiofoundation.audio.decode import DecodeLimits, decode_file

    limits = DecodeLimits(max_duration_s=_MAX_AUDIO_S, max_bytes=_MAX_BYTES)
    decoded = decode_file(source, limits=limits, target_rate_hz=rate_hz, is_mono=True)
    if decoded.damage:
        note(f"warning: {decoded.damage}")
    return decoded


def _write(output: Path, fmt: "AudioFormat", samples: "NDArray[np.float32]", rate_hz: int) -> None:
    """Write the file whole or not at all."""
    from audiofoundation.audio.encode import encode
    from audiofoundation.audio.waveform import Waveform

    partial = output.with_name(f".{output.name}.part")
    partial.write_bytes(encode(Waveform(samples[None, :], rate_hz), fmt))
    partial.replace(output)
