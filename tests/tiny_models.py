"""Random-weight models that load and run in milliseconds: they test everything but how it sounds."""

from pathlib import Path

import torch

from audiofoundation.models.checkpoint import save_model
from audiofoundation.models.classifier import MelClassifier, MelClassifierConfig
from audiofoundation.models.mel_transformer import MelTransformer, MelTransformerConfig

_TRANSFORMER = MelTransformerConfig(width=64, num_layers=2, num_heads=2, hidden=96, head_width=64, head_blocks=1)


def create_transformer(seed: int = 0) -> MelTransformer:
    """Return a small transformer whose frames are as loud as ordinary recordings."""
    torch.manual_seed(seed)
    model = MelTransformer(_TRANSFORMER).eval()
    model.mean_F.fill_(-1.0)
    return model


def save_pretrained(folder: Path) -> Path:
    """Write a continuation model `tiny` and a classifier `classifier-tiny`; return the folder."""
    torch.manual_seed(1)
    classifier = MelClassifier(MelClassifierConfig(width=8, window_frames=64))
    for name, module in (("tiny", create_transformer()), ("classifier-tiny", classifier)):
        (folder / name).mkdir(parents=True)
        save_model(folder / name / "model.safetensors", module, name=name)
    return folder
