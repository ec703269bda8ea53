"""Mel frames to samples, one thread: our streaming vocoders beside `vocos` (PyPI, random weights: speed only).

    python -m benchmarks.vocoder [--json]

The peer decodes the whole clip at once (its best case); ours stream in steps of four frames, as served, and our network
also has the whole clip.
"""

import sys

import numpy as np
import torch
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from audiofoundation.features.griffin_lim import GriffinLimVocoder
from audiofoundation.features.mel import Float32, get_preset
from audiofoundation.features.vocoder_protocol import Vocoder
from audiofoundation.models.layers import pack_for_decoding
from audiofoundation.models.vocoder import CausalVocos, CausalVocosConfig, CausalVocosVocoder
from benchmarks.report import Report, median_seconds

SECONDS = 8


def stream(vocoder: Vocoder, mel: Float32) -> Float32:
    """Decode in patches of four frames, as the engine does."""
    state = vocoder.create_stream(seed=0)
    parts = [state.push(mel[start : start + 4]) for start in range(0, len(mel), 4)]
    return np.concatenate([*parts, state.finish()])


def main() -> None:
    torch.set_num_threads(1)
    config = get_preset("vocos24")
    frames = round(SECONDS * config.frame_rate_hz)
    mel = (np.random.default_rng(0).standard_normal((frames, config.num_bands)) - 4).astype(np.float32)
    backbone = VocosBackbone(input_channels=100, dim=512, intermediate_dim=1536, num_layers=8).eval()
    head = ISTFTHead(dim=512, n_fft=1024, hop_length=256).eval()
    features = torch.from_numpy(mel.T[None].copy())

    @torch.inference_mode()
    def peer() -> torch.Tensor:
        return head(backbone(features))

    griffin_lim = GriffinLimVocoder(config)
    network = CausalVocos(CausalVocosConfig()).eval()
    pack_for_decoding(network)  # as loading a model file does
    causal = CausalVocosVocoder(network, "causal-vocos-tiny")

    @torch.inference_mode()
    def whole() -> torch.Tensor:
        return network(torch.from_numpy(mel)[None])

    seconds = median_seconds(
        {
            "ours griffinlim-streaming": lambda: stream(griffin_lim, mel),
            "ours causal-vocos-tiny": lambda: stream(causal, mel),
            "ours causal-vocos-tiny, whole": whole,
            "vocos": peer,
        }
    )
    speeds = {name: SECONDS / value for name, value in seconds.items()}
    report = Report("vocoder", {"threads": "1", "clip": f"{SECONDS} s", "measure": "CPU time, median of 5"})
    for ours in [name for name in speeds if name != "vocos"]:
        report.add(ours, {ours: speeds[ours], "vocos": speeds["vocos"]}, ours=ours, unit="x real time")
    report.show(is_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
