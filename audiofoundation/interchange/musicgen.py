"""MusicGen's view of a recording: text tokens, and EnCodec codes laid out as its decoder learns them."""

from collections.abc import Mapping
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audiofoundation.audio.resample import resample
from audiofoundation.audio.waveform import Waveform
from audiofoundation.errors import InvalidRequest
from audiofoundation.interchange.progress_bars import no_progress_bars
from audiofoundation.interchange.targets import Column

_MAX_TOKENS = 512  # what T5 was trained on
Codes = NDArray[np.int64]


class MusicgenTarget:
    """Encodes with the tokenizer and the audio encoder of a MusicGen model; nothing is downloaded.

    Args:
        model: directory of the model, or the name of one that transformers has in its cache.

    Raises:
        InvalidRequest: there is no MusicGen model of that name here.
    """

    column = "musicgen_features"

    def __init__(self, model: str | Path) -> None:
        from transformers import AutoTokenizer, MusicgenForConditionalGeneration

        if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
            raise InvalidRequest(f"{model} holds no MusicGen model: there is no config.json in it")
        try:
            with no_progress_bars():
                self._tokenizer = AutoTokenizer.from_pretrained(str(model), local_files_only=True)
                whole = MusicgenForConditionalGeneration.from_pretrained(str(model), local_files_only=True)
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise InvalidRequest(f"{model} holds no MusicGen model with its tokenizer: {error}") from error
        self._lock = Lock()  # tokenizers refuse to be used by two threads; the encoder takes every core
        self._name = str(model)
        self._encoder = whole.audio_encoder.eval()
        decoder = whole.config.decoder
        self._num_channels = int(decoder.audio_channels)
        self._num_codebooks = int(decoder.num_codebooks)
        self._pad_token_id = int(decoder.pad_token_id)
        self._rate_hz = int(whole.config.audio_encoder.sampling_rate)

    @property
    def arrow_type(self) -> pa.DataType:
        ids = pa.list_(pa.int64())
        return pa.struct([("input_ids", ids), ("attention_mask", ids), ("labels", pa.list_(ids))])

    @property
    def settings(self) -> Mapping[str, str | int]:
        return {
            "name": "musicgen",
            "model": self._name,
            "sample_rate_hz": self._rate_hz,
            "codebooks": self._num_codebooks,
        }

    def encode(self, waveform: Waveform, text: str) -> Column:
        """Return `input_ids` and `attention_mask` [L], and `labels` [T, codebooks] with pad tokens (no loss) at both
        ends of the delayed codebooks: what `MusicgenForConditionalGeneration` takes as `labels`."""
        with self._lock:
            return self._encode(waveform, text)

    def _encode(self, waveform: Waveform, text: str) -> Column:
        limit = min(int(self._tokenizer.model_max_length), _MAX_TOKENS)
        tokens = self._tokenizer(text, truncation=True, max_length=limit)
        codes = self._codes(resample(waveform, self._rate_hz).samples)
        labels = delay(codes, num_channels=self._num_channels, pad_token_id=self._pad_token_id)
        return {
            "input_ids": list(tokens["input_ids"]),
            "attention_mask": list(tokens["attention_mask"]),
            "labels": list(labels.T),
        }

    def _codes(self, samples: NDArray[np.float32]) -> Codes:
        """Return EnCodec's codes [codebooks, T]; of a stereo model left and right alternate."""
        import torch

        with torch.inference_mode():
            found = self._encoder.encode(torch.from_numpy(np.ascontiguousarray(samples))[None])
        frames = np.concatenate(list(found.audio_codes.numpy()), axis=-1)[
            0
        ]  # [chunks, 1, codebooks, T] -> [codebooks, T]
        codes: Codes = np.repeat(frames, self._num_channels, axis=0).astype(np.int64)
        if codes.shape[0] != self._num_codebooks:
            raise InvalidRequest(
                f"The model's audio encoder gives {codes.shape[0]} codebooks, its decoder wants {self._num_codebooks}."
            )
        return codes


def delay(codes: Codes, *, num_channels: int, pad_token_id: int) -> Codes:
    """Shift codebook k by k steps (both channels of a pair alike): MusicGen's delay pattern (Copet et al. 2023, §2.2).

    Args:
        codes: [codebooks, T].
        num_channels: 1, or 2 where codebooks of left and right alternate.
        pad_token_id: stands where a codebook has no code.

    Returns:
        [codebooks, T + codebooks / num_channels - 1].
    """
    num_codebooks, num_frames = codes.shape
    shifts = np.arange(num_codebooks) // num_channels
    delayed = np.full((num_codebooks, num_frames + int(shifts[-1])), pad_token_id, dtype=np.int64)
    for codebook, shift in enumerate(shifts):
        delayed[codebook, shift : shift + num_frames] = codes[codebook]
    return delayed
