"""Autoregressive steps, one thread: our decoder beside Hugging Face `generate` at equal size.

    python -m benchmarks.continue [--json]

The peer is a Llama of the same width, layers, heads and parameter count (its embeddings take the place of
our patch encoder and energy head); both read a three-second prompt and make 94 steps (four seconds) with a cache.
Ours has weights that float16 holds, as the bundled model's, or float32 that it does not; the peer float32 or bfloat16.
"""

import copy
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from audiofoundation.models.generation import MelContinuation
from audiofoundation.models.layers import pack_for_decoding
from audiofoundation.models.mel_transformer import MelTransformer, MelTransformerConfig
from audiofoundation.native import kernels
from benchmarks.report import Report, median_seconds

STEPS, PROMPT = 94, 70


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def peer_of(ours: MelTransformer) -> LlamaForCausalLM:
    """Return a Llama with the same decoder whose vocabulary makes up the same number of parameters."""
    config = ours.config
    decoder = sum(num_parameters(block) for block in ours.blocks)
    vocabulary = (num_parameters(ours) - decoder) // (2 * config.width)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=config.width,
            intermediate_size=config.hidden,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=512,
        )
    ).eval()


def main() -> None:
    torch.set_num_threads(1)
    prompt = np.random.default_rng(0).standard_normal((PROMPT * 4, 100)).astype(np.float32)
    full = MelTransformer(MelTransformerConfig()).eval()
    half = copy.deepcopy(full).half().float()
    peer = peer_of(full)
    models = {"ours, float16 weights": half, "ours, float32 weights": full}
    peers = {"transformers, float32": peer, "transformers, bfloat16": copy.deepcopy(peer).to(torch.bfloat16)}
    for model in models.values():
        pack_for_decoding(model)  # as loading a model file does
    tokens = torch.randint(0, peer.config.vocab_size, (1, PROMPT))

    def run_ours(model: MelTransformer) -> None:
        stream = MelContinuation(model, seed=0)
        stream.prefill(prompt)
        for _ in range(STEPS):
            stream.next_patch()

    def run_peer(model: LlamaForCausalLM) -> None:
        with torch.inference_mode():
            model.generate(
                tokens, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=True, pad_token_id=0,
                attention_mask=torch.ones_like(tokens),
            )  # fmt: skip

    runs: dict[str, Callable[[], object]] = {name: partial(run_ours, model) for name, model in models.items()}
    seconds = median_seconds(runs | {name: partial(run_peer, model) for name, model in peers.items()})
    speeds = {name: STEPS / value for name, value in seconds.items()}
    parameters = f"{num_parameters(full) / 1e6:.2f} M ours, {num_parameters(peer) / 1e6:.2f} M peer"
    native = "yes" if kernels() else "no"
    report = Report(
        "continue", {"threads": "1", "parameters": parameters, "steps": str(STEPS), "compiled loops": native}
    )
    for name in models:
        report.add(name, {key: speeds[key] for key in (name, *peers)}, ours=name, unit="steps per CPU second")
    report.show(is_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
