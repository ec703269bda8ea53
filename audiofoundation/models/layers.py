"""Layers of the transformer, in order of use.

Shape letters: B batch, L positions, D model width, H query heads, G key/value heads, E head width.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiofoundation.models.decoding import PackedBlock, PackedLinear, Source, is_step
from audiofoundation.native import Kernels

_EPSILON = 1e-5  # of normalisations


class Packable(nn.Module, ABC):
    """A part that has a quick way for a few frames of a stream, from weights that are packed for it."""

    packed: object = None

    @abstractmethod
    def pack(self) -> None:
        """Set `packed`, to None where compiled loops are missing or do not know this part."""


class Linear(nn.Linear, Packable):
    """A linear layer that is quick for a single row: one autoregressive step on a CPU.

    With `pack_for_decoding` the weight lies input-major in memory; a product with one row is then bound
    by memory and reads it in order, which took half the time of the usual layout (docs/lab/decoding.md).
    """

    packed: PackedLinear | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None and is_step(x, self.in_features) and (packed := self.still_packed()):
            return packed(x)
        if x.numel() != self.in_features:
            return functional.linear(x, self.weight, self.bias)
        row = functional.linear(x.reshape(1, -1), self.weight, self.bias)
        return row.reshape(*x.shape[:-1], -1)

    def still_packed(self) -> PackedLinear | None:
        """Return what was packed, or None where the layer has been written to since."""
        is_still = self.packed is not None and self.packed.source.is_still(self.weight, self.bias)
        return self.packed if is_still else None

    def pack(self) -> None:
        self.packed = None
        if not self.weight.is_inference():  # once written to, it would be neither that nor a common tensor
            self.weight.data = self.weight.data.t().contiguous().t()
            self.packed = PackedLinear.create(self.weight, self.bias)


@torch.inference_mode(mode=False)
def pack_for_decoding(module: nn.Module) -> None:
    """Lay the weights of every `Linear` input-major, and pack them for streams where compiled loops make those.

    Values and shapes stay as they are. A part that is written to afterwards is slow until it is packed again.
    """
    for part in reversed([*module.modules()]):  # a block is packed from the layers in it
        if isinstance(part, Packable):
            part.pack()


class RmsNorm(nn.Module):
    """Root-mean-square normalisation (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), _EPSILON)


def rotary_angles(positions_L: Tensor, head_width: int, *, theta: float = 1e4) -> Tensor:
    """Return cosines and signed sines [2, L, E] of rotary position embedding (Su et al. 2021).

    Both halves of a head share their angles; the sine of the first half is negated, so that
    `x * cosine + roll(x, E / 2) * sine` is the rotation.
    """
    frequencies = theta ** (-torch.arange(0, head_width, 2, device=positions_L.device) / head_width)
    angles = positions_L[:, None].float() * frequencies[None]
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)])


def rotate(x_BHLE: Tensor, angles_2LE: Tensor) -> Tensor:
    """Rotate every head by its position's angle."""
    rolled = x_BHLE.roll(x_BHLE.shape[-1] // 2, dims=-1)
    return torch.addcmul(x_BHLE * angles_2LE[0], rolled, angles_2LE[1])


def sinusoidal_embedding(positions_L: Tensor, width: int) -> Tensor:
    """Return fixed position vectors [L, D] (Vaswani et al. 2017, section 3.5)."""
    cosine, sine = rotary_angles(positions_L, width)
    half = width // 2
    return torch.cat([sine[:, half:], cosine[:, :half]], dim=-1)


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of one layer for positions seen so far: a window that forgets the oldest."""

    pairs_2BGLE: Tensor
    length: int = 0

    @classmethod
    def create(cls, batch: int, heads: int, capacity: int, width: int) -> "KeyValueCache":
        return cls(torch.zeros(2, batch, heads, capacity, width))

    def append(self, keys_BGLE: Tensor, values_BGLE: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions and return all that are held, [B, G, length, E]."""
        count, capacity = keys_BGLE.shape[2], self.pairs_2BGLE.shape[3]
        if self.length + count > capacity:
            kept = capacity - count
            # Clone: source and destination overlap.
            self.pairs_2BGLE[..., :kept, :] = self.pairs_2BGLE[..., self.length - kept : self.length, :].clone()
            self.length = kept
        stop = self.length + count
        keys, values = self.pairs_2BGLE[:, :, :, :stop]
        keys[:, :, self.length :] = keys_BGLE
        values[:, :, self.length :] = values_BGLE
        self.length = stop
        return keys, values


class Attention(nn.Module):
    """Causal self-attention with grouped queries, normalised queries and keys, and a sliding window."""

    def __init__(self, width: int, num_heads: int, num_kv_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.window = num_heads, num_kv_heads, window
        self.head_width = width // num_heads
        self.query_key_value = Linear(width, (num_heads + 2 * num_kv_heads) * self.head_width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(self.head_width))
        self.key_scale = nn.Parameter(torch.ones(self.head_width))
        self.out = Linear(num_heads * self.head_width, width, bias=False)

    def forward(self, x_BLD: Tensor, angles_2LE: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        heads, groups = self.num_heads, self.num_kv_heads
        mixed = self.query_key_value(x_BLD).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        scale = torch.cat([self.query_scale.expand(heads, 1, -1), self.key_scale.expand(groups, 1, -1)])
        rotated = functional.rms_norm(mixed[:, : heads + groups], (self.head_width,), eps=_EPSILON) * scale
        if angles_2LE is not None:
            rotated = rotate(rotated, angles_2LE)
        queries, keys, values = rotated[:, :heads], rotated[:, heads:], mixed[:, heads + groups :]
        if cache is not None:
            keys, values = cache.append(keys, values)
        out = self._attend(queries, keys, values.to(keys.dtype))
        return self.out(out.transpose(1, 2).flatten(2))

    def _attend(self, queries_BHLE: Tensor, keys_BGLE: Tensor, values_BGLE: Tensor) -> Tensor:
        num_queries, num_keys = queries_BHLE.shape[2], keys_BGLE.shape[2]
        if num_queries == 1 and num_keys <= self.window:
            # One step: the queries of a group stand beside each other, so keys need not be repeated.
            grouped = queries_BHLE.unflatten(1, (self.num_kv_heads, -1)).flatten(2, 3)
            attended = functional.scaled_dot_product_attention(grouped, keys_BGLE, values_BGLE)
            return attended.flatten(1, 2).unsqueeze(2)
        return functional.scaled_dot_product_attention(
            queries_BHLE, keys_BGLE, values_BGLE, attn_mask=self._mask(queries_BHLE, num_keys), enable_gqa=True
        )

    def _mask(self, queries_BHLE: Tensor, num_keys: int) -> Tensor:
        """Each query sees itself and the `window - 1` positions before it."""
        device, num_queries = queries_BHLE.device, queries_BHLE.shape[2]
        query_at = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
        key_at = torch.arange(num_keys, device=device)[None]
        return (key_at <= query_at) & (key_at > query_at - self.window)


class SwiGlu(nn.Module):
    """Gated feed-forward layer (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_BLD).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class DecoderBlock(Packable):
    """Pre-norm attention and feed-forward, residual branches scaled at initialisation by 1/sqrt(2·layers)."""

    packed: PackedBlock | None = None

    def __init__(
        self, width: int, *, heads: tuple[int, int], hidden: int, window: int, dropout: float, depth: int
    ) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = RmsNorm(width), RmsNorm(width)
        self.attention = Attention(width, heads[0], heads[1], window)
        self.feed_forward = SwiGlu(width, hidden)
        self.dropout = nn.Dropout(dropout)
        for projection in (self.attention.out, self.feed_forward.down):
            nn.init.normal_(projection.weight, std=1 / math.sqrt(projection.in_features * 2 * depth))

    def forward(
        self,
        x_BLD: Tensor,
        angles_2LE: Tensor | None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        if self.packed is not None and cache is not None and self._is_packed_step(self.packed, x_BLD, cache):
            out_BLD, cache.length = self.packed(x_BLD, angles_2LE, cache.pairs_2BGLE, cache.length)
            return out_BLD
        x_BLD = x_BLD + self.dropout(self.attention(self.attention_norm(x_BLD), angles_2LE, cache))
        return x_BLD + self.dropout(self.feed_forward(self.feed_forward_norm(x_BLD)))

    def _is_packed_step(self, packed: PackedBlock, x_BLD: Tensor, cache: KeyValueCache) -> bool:
        _, batch, _, capacity, _ = cache.pairs_2BGLE.shape
        fits = batch == 1 and capacity <= self.attention.window
        is_one = fits and not self.training and is_step(x_BLD, x_BLD.shape[-1])
        return is_one and packed.source.is_still(*self._weights())

    def _weights(self) -> tuple[Tensor, ...]:
        """In the order of `Kernels.decode_block`."""
        attention, feed_forward = self.attention, self.feed_forward
        scales = attention.query_scale, attention.key_scale
        first = self.attention_norm.weight, attention.query_key_value.weight, *scales, attention.out.weight
        return *first, self.feed_forward_norm.weight, feed_forward.gate_up.weight, feed_forward.down.weight

    def pack(self) -> None:
        self.packed = None
        attention, feed_forward, source = self.attention, self.feed_forward, Source.of(*self._weights())
        linears = attention.query_key_value, attention.out, feed_forward.gate_up, feed_forward.down
        packed = [found for it in linears if (found := it.still_packed()) is not None and not found.bias.size]
        if source is None or len(packed) < len(linears) or not Kernels.has_product(attention.head_width):
            return
        mixed, out, gate_up, down = packed
        vectors = (it.detach().numpy() for it in self._weights() if it.ndim == 1)
        first_norm, query_scale, key_scale, second_norm = vectors
        self.packed = PackedBlock(
            mixed.native,
            (first_norm, mixed.matrix, query_scale, key_scale, out.matrix, second_norm, gate_up.matrix, down.matrix),
            (attention.num_heads, attention.num_kv_heads, feed_forward.down.in_features),
            _EPSILON,
            source,
        )
