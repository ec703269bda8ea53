"""Rows of a dataset folder to batches that `transformers.Trainer` feeds to a model.

    trainer = Trainer(
        model=whisper,
        args=TrainingArguments("runs", remove_unused_columns=False),
        train_dataset=split["train"],
        data_collator=WhisperCollator(tokenizer),
    )

Shape letters: B rows, F mel bands, L text tokens, T code frames, K codebooks.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

_NO_LOSS = -100  # transformers' mark for labels that are not learned
Row = Mapping[str, Mapping[str, ArrayLike]]


class TextEncoder(Protocol):
    """What is used of a transformers tokenizer."""

    def __call__(self, text: str, *, truncation: bool, max_length: int) -> Mapping[str, Sequence[int]]:
        """Return the tokens under `input_ids`."""


class WhisperCollator:
    """Gives `input_features` float32 [B, F, 3000] and `labels` int64 [B, L], the tokens of `text`.

    Args:
        tokenizer: the model's.
        max_tokens: longer texts are cut; Whisper's decoder has 448 places.
    """

    def __init__(self, tokenizer: TextEncoder, *, max_tokens: int = 448) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        features = [np.asarray(row["whisper_features"]["input_features"], dtype=np.float32) for row in rows]
        texts = [self._tokenizer(str(row["text"]), truncation=True, max_length=self._max_tokens) for row in rows]
        labels = [np.asarray(text["input_ids"]) for text in texts]
        return {"input_features": torch.from_numpy(np.stack(features)), "labels": _padded(labels, _NO_LOSS)}


class MusicgenCollator:
    """Gives `input_ids` and `attention_mask` int64 [B, L], and `labels` int64 [B, T, K].

    Args:
        pad_token_id: the tokenizer's.
    """

    def __init__(self, *, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        found = [row["musicgen_features"] for row in rows]
        fills = {"input_ids": self._pad_token_id, "attention_mask": 0, "labels": _NO_LOSS}
        return {name: _padded([np.asarray(part[name]) for part in found], fill) for name, fill in fills.items()}


def _padded(arrays: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int64]]], fill: int) -> Tensor:
    """Stack arrays that differ in their first dimension."""
    longest = max(len(array) for array in arrays)
    batch = np.full((len(arrays), longest, *arrays[0].shape[1:]), fill, dtype=np.int64)
    for row, array in zip(batch, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(batch)
