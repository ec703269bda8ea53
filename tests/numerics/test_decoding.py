"""A compiled step gives what torch gives, for vectors of each width and both kinds of weights, and refuses the rest."""

import copy
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from audiofoundation.models.checkpoint import load_model
from audiofoundation.models.decoding import PackedBlock, PackedLinear
from audiofoundation.models.layers import DecoderBlock, KeyValueCache, Linear, pack_for_decoding
from audiofoundation.models.mel_transformer import DecoderState, MelTransformer, MelTransformerConfig
from audiofoundation.native import OFF, Kernels, _kernels, kernels

BUNDLED = Path(__file__).parents[2] / "pretrained" / "tiny" / "model.safetensors"
SMALL = MelTransformerConfig(
    width=64, num_layers=3, num_heads=4, hidden=96, context_patches=16, head_width=48, head_blocks=2, noise_width=8
)
WIDTHS = (8, 4)

pytestmark = pytest.mark.skipif(_kernels is None, reason="the kernels are not compiled here")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(OFF, raising=False)
    kernels.cache_clear()
    yield
    kernels.cache_clear()
    _kernels.use_lanes(max(WIDTHS))


@pytest.fixture(params=WIDTHS)
def lanes(request: pytest.FixtureRequest) -> int:
    found: int = _kernels.use_lanes(request.param)
    return found


def create_model(config: MelTransformerConfig, *, is_half: bool) -> MelTransformer:
    torch.manual_seed(0)
    model = MelTransformer(config).eval()
    for name, vector in model.named_parameters():
        if vector.ndim == 1:  # scales of ones would hide which is which
            torch.nn.init.normal_(vector, std=20 if name.endswith("query_scale") else 1)
    return model.half().float() if is_half else model


@torch.inference_mode()
def steps(model: MelTransformer, patches: Tensor) -> Tensor:
    """A prompt of three, then one at a time."""
    state = model.create_state()
    parts = [model(patches[:, :3], state=state)]
    parts += [model(patches[:, i : i + 1], state=state) for i in range(3, patches.shape[1])]
    return torch.cat(parts, dim=1)


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("positions", ["rope", "sinusoidal", "learned"])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_steps_are_those_of_torch(
    num_kv_heads: int, positions: Literal["rope", "sinusoidal", "learned"], is_half: bool
) -> None:
    """Also where the cache is full and forgets."""
    model = create_model(replace(SMALL, num_kv_heads=num_kv_heads, positions=positions), is_half=is_half)
    patches = torch.randn(1, 40, 4, 100)
    expected = steps(model, patches)
    pack_for_decoding(model)

    found = steps(model, patches)

    assert all(block.packed is not None for block in model.blocks)
    assert not torch.equal(found, expected)  # it was computed in another way
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_is_that_of_torch(has_bias: bool, is_half: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(400, 320, bias=has_bias)
    layer = layer.half().float() if is_half else layer
    x = torch.randn(1, 1, 400)
    with torch.no_grad():
        expected = layer(x)
        pack_for_decoding(layer)
        found = layer(x)

    assert layer.packed is not None
    assert layer.packed.matrix.dtype == (np.float16 if is_half else np.float32)
    assert found.shape == (1, 1, 320)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.usefixtures("lanes")
def test_every_half_float_is_read_as_it_is() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    matrix = np.zeros((8, halves.size), np.float16)
    matrix[3] = halves
    x = np.eye(8, dtype=np.float32)[3]

    np.testing.assert_array_equal(Kernels().project(x, matrix, np.empty(0, np.float32)), halves.astype(np.float32))


def test_weights_are_halved_only_where_nothing_is_lost() -> None:
    layer = Linear(8, 8, bias=False)
    torch.nn.init.constant_(layer.weight, 0.5)
    kept = [PackedLinear.create(layer.weight, None)]
    for value in (0.1, 1e5, 1e-8, math.inf, math.nan):
        with torch.no_grad():
            layer.weight[5, 2] = value
        kept.append(PackedLinear.create(layer.weight, None))

    assert [it and it.matrix.dtype for it in kept] == [np.float16] + 5 * [np.float32]


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("level", [1e-4, 1e-2, 1, 1e4])
def test_a_block_is_that_of_torch_at_any_level(level: float) -> None:
    """Quiet values show the epsilon of normalisations, scores in the hundreds how softmax is computed."""
    block = create_model(SMALL, is_half=True).get_submodule("blocks.1")
    torch.nn.init.constant_(block.get_parameter("attention.query_scale"), 300)
    x = torch.randn(6, 1, 1, 64) * level

    @torch.inference_mode()
    def outputs() -> Tensor:
        cache = KeyValueCache.create(1, SMALL.num_kv_heads, 4, 16)
        return torch.cat([block(it, None, cache) for it in x])

    expected = outputs()
    pack_for_decoding(block)
    given = x.clone()
    found = outputs()

    torch.testing.assert_close(x, given, atol=0, rtol=0)
    torch.testing.assert_close(found, expected, atol=2e-5 * max(1, level), rtol=1e-4)


@pytest.mark.parametrize("config", [replace(SMALL, hidden=92), replace(SMALL, width=48)])
def test_what_has_other_widths_is_left_to_torch(config: MelTransformerConfig) -> None:
    """A feed-forward layer, then heads of 12."""
    model = create_model(config, is_half=True)
    patches = torch.randn(1, 10, 4, 100)
    expected = steps(model, patches)
    pack_for_decoding(model)

    assert [block.packed for block in model.blocks] == [None] * SMALL.num_layers
    torch.testing.assert_close(steps(model, patches), expected, atol=2e-5, rtol=1e-4)


def test_without_the_compiled_loops_torch_makes_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF, "0")
    kernels.cache_clear()
    model = create_model(SMALL, is_half=True)
    pack_for_decoding(model)

    assert [block.packed for block in model.blocks] == [None] * SMALL.num_layers
    assert all(it.packed is None for it in model.modules() if isinstance(it, Linear))


def test_gradients_and_whole_sequences_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model(SMALL, is_half=True)
    pack_for_decoding(model)

    def forbidden(*_: object) -> None:
        raise AssertionError("the compiled step was taken")

    monkeypatch.setattr(Kernels, "project", forbidden)
    monkeypatch.setattr(Kernels, "decode_block", forbidden)
    model(torch.randn(1, 1, 4, 100)).sum().backward()
    with torch.inference_mode():
        model(torch.randn(2, 5, 4, 100), state=model.create_state(batch=2))
        with pytest.raises(AssertionError):
            model(torch.randn(1, 1, 4, 100), state=model.create_state())
    weight = model.get_parameter("blocks.0.attention.query_key_value.weight")
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


@torch.no_grad()
def test_training_mixed_precision_and_other_types_are_left_to_torch() -> None:
    model = create_model(replace(SMALL, dropout=0.9), is_half=True)
    pack_for_decoding(model)
    patch, layer = torch.randn(1, 1, 4, 100), Linear(64, 64)
    pack_for_decoding(layer)
    with torch.inference_mode():
        made_for_inference = Linear(64, 64)

    model.train()
    assert not torch.equal(model(patch, state=model.create_state()), model(patch, state=model.create_state()))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(64)).dtype == torch.bfloat16
    with pytest.raises(RuntimeError):
        layer(torch.randn(64, dtype=torch.float64))
    assert layer.packed is not None
    unknown = layer.double(), Linear(64, 64, dtype=torch.float16), Linear(64, 64, device="meta"), made_for_inference
    for other in unknown:
        pack_for_decoding(other)
        assert other.packed is None


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("is_half", [False, True])
def test_weights_that_are_written_to_are_the_ones_used(is_half: bool, is_copied: bool) -> None:
    model, other = create_model(SMALL, is_half=is_half), create_model(SMALL, is_half=is_half)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    patches = torch.randn(1, 6, 4, 100)
    pack_for_decoding(model)
    model = copy.deepcopy(model) if is_copied else model
    model.load_state_dict(other.state_dict())

    torch.testing.assert_close(steps(model, patches), steps(other, patches), atol=2e-5, rtol=1e-4)


def replace_weight(layer: Linear) -> None:
    layer.weight = torch.nn.Parameter(layer.weight * 2)


def replace_bias(layer: Linear) -> None:
    layer.bias = torch.nn.Parameter(layer.bias * 2)


def assign(layer: Linear) -> None:
    layer.load_state_dict({key: value * 2 for key, value in layer.state_dict().items()}, assign=True)


def write_bias(layer: Linear) -> None:
    layer.bias.mul_(2)


@torch.no_grad()
@pytest.mark.parametrize("change", [replace_weight, replace_bias, assign, write_bias])
def test_parameters_that_are_replaced_are_the_ones_used(change: Callable[[Linear], None]) -> None:
    layer, x = Linear(64, 64), torch.randn(64)
    pack_for_decoding(layer)
    doubled = {key: value * 2 for key, value in layer.state_dict().items()}
    torch.testing.assert_close(torch.func.functional_call(layer, doubled, x), 2 * layer(x))

    change(layer)

    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


@torch.no_grad()
def test_types_there_and_back_leave_nothing_behind() -> None:
    """The address of what was packed must not come to hold something else."""
    for _ in range(20):
        layer, x = Linear(64, 64, bias=False).half().float(), torch.randn(64)
        pack_for_decoding(layer)
        layer.bfloat16().float()
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight))


@torch.no_grad()
def test_a_block_whose_parameters_are_replaced_uses_those() -> None:
    model, other = create_model(SMALL, is_half=True), create_model(SMALL, is_half=True)
    for parameter in other.parameters():
        parameter.mul_(1.5)
    patches = torch.randn(1, 6, 4, 100)
    pack_for_decoding(model)
    model.load_state_dict(other.state_dict(), assign=True)

    torch.testing.assert_close(steps(model, patches), steps(other, patches), atol=2e-5, rtol=1e-4)


def test_packing_while_in_inference_mode() -> None:
    """A model made before it is packed, one made within it is left to torch."""
    model, patches = create_model(SMALL, is_half=True), torch.randn(1, 10, 4, 100)
    expected = steps(model, patches)
    with torch.inference_mode():
        made_within = create_model(SMALL, is_half=False)
        pack_for_decoding(model)
        pack_for_decoding(made_within)

    assert all(block.packed is not None for block in model.blocks)
    assert [block.packed for block in made_within.blocks] == [None] * SMALL.num_layers
    torch.testing.assert_close(steps(model, patches), expected, atol=2e-5, rtol=1e-4)
    assert torch.isfinite(steps(made_within, patches)).all()


@pytest.mark.parametrize("kind", ["half", "double"])
def test_blocks_of_mixed_types_are_left_to_torch(kind: str) -> None:
    model = create_model(SMALL, is_half=True)
    getattr(model.get_submodule("blocks.0.attention_norm"), kind)()
    pack_for_decoding(model)

    assert [block.packed is None for block in model.blocks] == [True, False, False]
    assert torch.isfinite(steps(model, torch.randn(1, 10, 4, 100))).all()


@torch.no_grad()
def test_caches_of_more_than_a_step_knows_are_left_to_torch() -> None:
    """Several rows that one is given to, and more positions than the window."""
    model = create_model(SMALL, is_half=True)
    wide = [KeyValueCache.create(1, SMALL.num_kv_heads, 32, 16) for _ in range(SMALL.num_layers)]
    patches = torch.randn(1, 30, 4, 100)

    def outputs(state: DecoderState) -> Tensor:
        return torch.cat([model(patches[:, i : i + 1], state=state) for i in range(30)], dim=1)

    expected = outputs(model.create_state(batch=2)), outputs(DecoderState(copy.deepcopy(wide)))
    pack_for_decoding(model)
    found = outputs(model.create_state(batch=2)), outputs(DecoderState(wide))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_streams_in_threads_are_those_made_alone() -> None:
    model = create_model(SMALL, is_half=True)
    pack_for_decoding(model)
    prompts = torch.randn(8, 1, 40, 4, 100)
    expected = [steps(model, it) for it in prompts]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda it: steps(model, it), prompts))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_bundled_model_is_read_in_half_the_bytes() -> None:
    block = load_model(BUNDLED).module.get_submodule("blocks.0")

    assert isinstance(block, DecoderBlock)
    assert isinstance(block.packed, PackedBlock)
    assert [it.dtype for it in block.packed.weights if it.ndim == 2] == [np.float16] * 4


def block_arguments(heads: int = 2, groups: int = 1) -> list[np.ndarray]:
    """Width 16, heads of width 8, hidden 24, four positions."""
    mixed = (heads + 2 * groups) * 8
    shapes = [
        (16,),
        (2, 8),
        (2, groups, 4, 8),
        (16,),
        (16, mixed),
        (8,),
        (8,),
        (heads * 8, 16),
        (16,),
        (16, 48),
        (24, 16),
    ]
    return [np.ones(shape, np.float32) for shape in shapes]


@pytest.mark.parametrize("index", range(11))
@pytest.mark.parametrize("change", [-1, 1])
def test_parts_of_another_size_are_refused(index: int, change: int) -> None:
    arrays = block_arguments()
    assert _kernels.decode_block(0, 2, 1, 24, 1e-5, *arrays) == 1

    arrays = block_arguments()
    arrays[index] = np.ones(arrays[index].size + change, np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        _kernels.decode_block(0, 2, 1, 24, 1e-5, *arrays)
    np.testing.assert_array_equal(arrays[0], 1)


@pytest.mark.parametrize(
    "numbers",
    [(-1, 2, 1, 24), (5, 2, 1, 24), (0, 0, 1, 24), (0, 2, 0, 24), (0, 3, 2, 24), (0, 2, 1, 0), (0, 2, 1, -24)],
)
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        _kernels.decode_block(*numbers, 1e-5, *block_arguments())


def test_heads_that_cannot_be_shared_out_are_refused() -> None:
    assert _kernels.decode_block(0, 4, 2, 24, 1e-5, *block_arguments(4, 2)) == 1
    with pytest.raises(ValueError, match="do not fit"):
        _kernels.decode_block(0, 3, 2, 24, 1e-5, *block_arguments(3, 2))


@pytest.mark.parametrize(
    "sizes", [(8, 8 * 16, 16, 8), (8, 8 * 15, 0, 16), (12, 12 * 16, 0, 16), (0, 0, 0, 16), (8, 0, 0, 0)]
)
def test_products_of_other_sizes_are_refused(sizes: tuple[int, int, int, int]) -> None:
    x, matrix, bias, out = (np.ones(size, np.float32) for size in sizes)
    with pytest.raises(ValueError, match="do not fit"):
        _kernels.project(x, matrix, bias, out)
