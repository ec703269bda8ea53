"""Autoregressive steps, one thread: our decoder beside Hugging Face `generate` at equal size.

    python -m benchmarks.continue [--json]

The peer is a Llama of the same width, layers, heads and parameter count (its embeddings take the place of
our patch encoder and energy head); both read a three-second prompt and make 94 steps (four seconds) with a cache.
"""

import sys

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from audiofoundation.models.generation import MelContinuation
from audiofoundation.models.layers import pack_for_decoding
from audiofoundation.models.mel_transformer import MelTransformer, MelTransformerConfig
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
    ours = MelTransformer(MelTransformerConfig()).eval()
    pack_for_decoding(ours)  # as loading a model file does
    peer = peer_of(ours)
    prompt = np.random.default_rng(0).standard_normal((PROMPT * 4, 100)).astype(np.float32)
    tokens = torch.randint(0, peer.config.vocab_size, (1, PROMPT))

    def run_ours() -> None:
        stream = MelContinuation(ours, seed=0)
        stream.prefill(prompt)
        for _ in range(STEPS):
            stream.next_patch()

    def run_peer() -> None:
        with torch.inference_mode():
            peer.generate(
                tokens, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=True, pad_token_id=0,
                attention_mask=torch.ones_like(tokens),
            )  # fmt: skip

    seconds = median_seconds({"ours": run_ours, "transformers generate": run_peer})
    report = Report(
        "continue",
        {
            "threads": "1",
            "parameters": f"{num_parameters(ours) / 1e6:.2f} M ours, {num_parameters(peer) / 1e6:.2f} M peer",
            "steps": str(STEPS),
        },
    )
    report.add("steps per CPU second", {k: STEPS / v for k, v in seconds.items()}, ours="ours", unit="steps/s")
    report.show(is_json="--json" in sys.argv)


if __name__ == "__main__":
    main()
