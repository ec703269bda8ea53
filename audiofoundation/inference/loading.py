"""From a loaded file to what the engine runs: the one file here that knows torch and each kind of model."""

import numpy as np
import torch

from audiofoundation.errors import InvalidRequest
from audiofoundation.features.mel import Float32, get_preset
from audiofoundation.features.vocoder_protocol import Vocoder
from audiofoundation.inference.classification import ClassifierModel
from audiofoundation.inference.engine import ContinuationModel, MelGenerator
from audiofoundation.models.checkpoint import LoadedModel
from audiofoundation.models.classifier import MelClassifier, classify
from audiofoundation.models.generation import MelContinuation, SamplingOptions
from audiofoundation.models.mel_transformer import MelTransformer
from audiofoundation.models.vocoder import CausalVocos, CausalVocosVocoder

# What preprocessing brings recordings to by default (EBU R 128).
TRAINING_LUFS = -23.0


def limit_threads(num_threads: int) -> None:
    """Set the intra-op threads. Two of them on a busy machine stall every layer of a small model for ms."""
    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)


def to_continuation_model(loaded: LoadedModel, version: str, vocoder: Vocoder) -> ContinuationModel:
    """Return the model as the engine runs it.

    Raises:
        InvalidRequest: the file holds another kind of model.
        MelMismatch: the vocoder was made for another preset.
    """
    module = loaded.module
    if not isinstance(module, MelTransformer):
        raise _wrong_kind(loaded, "continues no audio")
    config = get_preset(module.config.preset)
    config.require(vocoder.mel_config.fingerprint, what=f"vocoder {vocoder.name}")

    def create_generator(seed: int, temperature: float | None) -> MelGenerator:
        options = SamplingOptions() if temperature is None else SamplingOptions(temperature=temperature)
        return MelContinuation(module, seed=seed, options=options)

    return ContinuationModel(
        version=version,
        mel_config=config,
        patch_frames=module.config.patch_frames,
        loudness_lufs=TRAINING_LUFS,
        vocoder=vocoder,
        create_generator=create_generator,
    )


def to_classifier_model(loaded: LoadedModel, version: str) -> ClassifierModel:
    """Return the model as the classifier runs it.

    Raises:
        InvalidRequest: the file holds another kind of model.
    """
    module = loaded.module
    if not isinstance(module, MelClassifier):
        raise _wrong_kind(loaded, "classifies nothing")
    labels = module.config.labels

    def scores(mel: Float32) -> Float32:
        found = dict(classify(module, mel))
        return np.array([found[label] for label in labels], np.float32)

    return ClassifierModel(version, get_preset(module.config.preset), labels, TRAINING_LUFS, scores)


def to_vocoder(loaded: LoadedModel, name: str) -> Vocoder:
    """Return the model as the engine's vocoder.

    Raises:
        InvalidRequest: the file holds another kind of model.
    """
    if not isinstance(loaded.module, CausalVocos):
        raise _wrong_kind(loaded, "is no vocoder")
    return CausalVocosVocoder(loaded.module, name)


def require_preset(vocoder: Vocoder, preset: str) -> None:
    """Raise MelMismatch when the vocoder speaks another preset."""
    get_preset(preset).require(vocoder.mel_config.fingerprint, what=f"vocoder {vocoder.name}")


def _wrong_kind(loaded: LoadedModel, what: str) -> InvalidRequest:
    return InvalidRequest(
        f"model {loaded.header.name} {what}: it is a {loaded.header.kind}; GET /v1/models lists the others",
        param="model",
    )
