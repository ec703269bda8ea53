"""What a stream calls for every few frames, on a CPU in compiled loops (ADR 0010), where there are any; torch does the
same elsewhere.

Shape letters: T frames, D model width, H query heads, G key/value heads, E head width, L positions of the cache.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from audiofoundation.native import Float32, Kernels, Matrix, kernels

_NO_VALUES = np.empty(0, np.float32)


def is_step(x: Tensor, width: int) -> bool:
    """Whether x [..., D] is a single row of plain float32 on the CPU that no gradient is asked of."""
    return x.numel() == width and is_plain_input(x)


def is_plain_input(x: Tensor) -> bool:
    """Whether x is float32 on the CPU that no gradient is asked of."""
    is_plain = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_plain and not torch.is_grad_enabled()


def to_matrix(weight: Tensor) -> Matrix:
    """Return a weight [outputs, inputs] input-major; in float16, half the bytes to read, where that loses nothing."""
    matrix: Float32 = weight.detach().t().contiguous().numpy()
    halves = weight.detach().t().to(torch.float16).contiguous()
    is_exact = bool(torch.isfinite(halves).all()) and torch.equal(halves.float(), torch.from_numpy(matrix))
    return halves.numpy() if is_exact else matrix


@dataclass(frozen=True, slots=True)
class Source:
    """The parameters that something was packed from, where each lay and how often it had been written to.

    Attributes:
        parameters: the objects.
        values: what they held; as long as that is kept nothing else comes to lie there.
        states: address and version of each.
    """

    parameters: tuple[Tensor | None, ...]
    values: tuple[Tensor | None, ...]
    states: list[tuple[int, int] | None]

    @classmethod
    def of(cls, *parameters: Tensor | None) -> "Source | None":
        """Return None where compiled loops cannot read them: they are of another type or device, or keep no count."""
        if not all(it is None or _is_plain(it) for it in parameters):
            return None
        values = tuple(None if it is None else it.detach() for it in parameters)
        return cls(parameters, values, [_state(it) for it in parameters])

    def is_still(self, *parameters: Tensor | None) -> bool:
        """Whether these are the parameters, as they were. What writes in place through `.data` or NumPy is not seen."""
        pairs = zip(parameters, self.parameters, strict=True)
        return all(a is b for a, b in pairs) and [_state(it) for it in parameters] == self.states


def _state(parameter: Tensor | None) -> tuple[int, int] | None:
    return None if parameter is None else (parameter.data_ptr(), parameter._version)


def _is_plain(parameter: Tensor) -> bool:
    return parameter.dtype == torch.float32 and parameter.device.type == "cpu" and not parameter.is_inference()


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A linear layer's weights as they are read for one row."""

    native: Kernels
    matrix: Matrix
    bias: Float32
    source: Source

    @classmethod
    def create(cls, weight: Tensor, bias: Tensor | None) -> "PackedLinear | None":
        """Return None where the compiled loops are missing or know neither these sizes nor this type."""
        native, source = kernels(), Source.of(weight, bias)
        if native is None or source is None or not native.has_product(*weight.shape):
            return None
        return cls(native, to_matrix(weight), _NO_VALUES if bias is None else bias.detach().numpy(), source)

    def __call__(self, x: Tensor) -> Tensor:
        """Map [..., inputs] of a single row to [..., outputs]."""
        out = self.native.project(x.reshape(-1).numpy(), self.matrix, self.bias)
        return torch.from_numpy(out).view(*x.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """A decoder block's weights as they are read for one position.

    Attributes:
        weights: norm [D], query/key/value, query scale [E], key scale [E], out, norm [D], gate and up, down.
        sizes: H, G and the width of the feed-forward layer.
        epsilon: of every normalisation.
        source: what they were packed from.
    """

    native: Kernels
    weights: tuple[Matrix, ...]
    sizes: tuple[int, int, int]
    epsilon: float
    source: Source

    def __call__(self, x: Tensor, angles_2LE: Tensor | None, pairs_2BGLE: Tensor, length: int) -> tuple[Tensor, int]:
        """Map a position [..., D] to its output; its keys and values join the `length` that the cache holds.

        Returns the output and how many positions the cache holds now. A full one forgets its oldest.
        """
        out = x.reshape(-1).numpy().copy()
        angles = _NO_VALUES if angles_2LE is None else angles_2LE.contiguous().numpy()
        cache = pairs_2BGLE.numpy()
        length = self.native.decode_block(out, angles, cache, length, self.weights, self.sizes, self.epsilon)
        return torch.from_numpy(out).view_as(x), length


@dataclass(frozen=True, slots=True)
class PackedConvNeXt:
    """A vocoder block's weights as they are read for a few frames.

    Attributes:
        weights: as `Kernels.convnext_block` takes them.
        hidden: width of the feed-forward layer.
        epsilon: of the norm.
        source: what they were packed from.
    """

    native: Kernels
    weights: tuple[Matrix, ...]
    hidden: int
    epsilon: float
    source: Source

    def __call__(self, x_1TD: Tensor, past_16D: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output [1, T, D], and what is the past of the next frames [1, 6, D]."""
        out, past = x_1TD[0].numpy().copy(), past_16D[0].numpy().copy()
        self.native.convnext_block(out, past, self.weights, self.hidden, self.epsilon)
        return torch.from_numpy(out)[None], torch.from_numpy(past)[None]
