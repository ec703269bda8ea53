"""The Python door to datasets for other models: what `audiofoundation dataset build` does, and custom features."""

import os
import re
from pathlib import Path

from audiofoundation.features.custom import FeatureFunction
from audiofoundation.interchange.build import BuildOptions, BuildReport, OnProgress, build_folder
from audiofoundation.interchange.conditioning import Conditioning
from audiofoundation.interchange.samples import STANDARD_FEATURES, ProcessedSample, SampleProcessor
from audiofoundation.interchange.targets import Target, WhisperTarget

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AudioPreprocessingPipeline:
    """Turns recordings with descriptions into samples with audio, descriptors, and Whisper's and MusicGen's features.

        pipeline = AudioPreprocessingPipeline(target_sample_rate=32000, max_audio_length=30)
        pipeline.register_feature("crest", lambda samples, rate: float(abs(samples).max() / samples.std()))
        report = pipeline.build_dataset("recordings", "dataset", val_split=0.1)

    Args:
        target_sample_rate: of `processed_audio`, in Hz, 8000 to 192000.
        max_audio_length: longest sample in seconds, 0.1 to 600.
        model_name: directory of a MusicGen model (or a name in transformers' cache; nothing is downloaded). With it
            samples have `musicgen_features`.
        whisper_bands: mel bands of `whisper_features`, 80 or 128; None leaves them out.

    Raises:
        ValueError: a number is out of its range.
        InvalidRequest: there is no such model.
    """

    def __init__(
        self,
        target_sample_rate: int = 32_000,
        max_audio_length: float = 30.0,
        model_name: str | os.PathLike[str] | None = None,
        *,
        whisper_bands: int | None = 80,
    ) -> None:
        conditioning = Conditioning(sample_rate_hz=target_sample_rate, max_duration_s=max_audio_length)
        targets: list[Target] = []
        if model_name is not None:
            from audiofoundation.interchange.musicgen import MusicgenTarget

            targets.append(MusicgenTarget(os.fspath(model_name)))
        if whisper_bands is not None:
            targets.append(WhisperTarget(whisper_bands))
        self._processor = SampleProcessor(conditioning, targets)

    def register_feature(self, name: str, function: FeatureFunction) -> None:
        """Add a number, or a row of numbers, to every sample's `audio_features`.

        Args:
            name: letters, digits and underscores; none of the standard names.
            function: called with the processed audio, float32 [N] in [-1, 1], and its rate in Hz; returns a finite
                number or a flat sequence of them, as long for every sample as for the first. It is called in a thread,
                one call at a time. A file with which it fails is skipped, and the report says why.

        Raises:
            ValueError: the name cannot be used.
        """
        if not _NAME.fullmatch(name) or name in STANDARD_FEATURES:
            raise ValueError(f"a feature cannot be named {name!r}: take letters, digits and _, and no standard name")
        self._processor.functions[name] = function

    def process(self, path: str | os.PathLike[str], text: str) -> ProcessedSample:
        """Make one sample from a recording of any format; errors as `SampleProcessor.process`."""
        return self._processor.process(Path(path), text)

    def build_dataset(
        self,
        folder: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        val_split: float = 0.1,
        num_plots: int = 20,
        on_progress: OnProgress | None = None,
    ) -> BuildReport:
        """Build a dataset folder; see `build_folder`."""
        options = BuildOptions(validation_share=val_split, num_pictures=num_plots)
        return build_folder(self._processor, Path(folder), Path(out), options=options, on_progress=on_progress)
