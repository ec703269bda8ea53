"""A compiled block of the causal vocoder gives what torch gives, streamed or whole, and refuses what does not fit."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from audiofoundation.models.decoding import PackedConvNeXt
from audiofoundation.models.layers import Linear, pack_for_decoding
from audiofoundation.models.vocoder import (
    CausalConv,
    CausalVocos,
    CausalVocosConfig,
    CausalVocosVocoder,
    ConvNeXtBlock,
)
from audiofoundation.native import OFF, Float32, Kernels, _kernels, kernels

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


def create_vocoder(*, is_half: bool, width: int = 32) -> CausalVocos:
    torch.manual_seed(0)
    model = CausalVocos(CausalVocosConfig(width=width, hidden=64, num_layers=3)).eval()
    for vector in (it for it in model.blocks.parameters() if it.ndim == 1):
        torch.nn.init.normal_(vector)
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float() if is_half else parameter.data
    return model


def streamed(model: CausalVocos, mel: Float32, pieces: int) -> Float32:
    stream = CausalVocosVocoder(model, "small").create_stream()
    parts = [stream.push(mel[i : i + pieces]) for i in range(0, len(mel), pieces)]
    return np.concatenate([*parts, stream.finish()])


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("is_half", [True, False])
def test_the_vocoder_in_a_stream_is_the_whole(is_half: bool) -> None:
    model, mel = create_vocoder(is_half=is_half), np.random.default_rng(0).standard_normal((45, 100)).astype(np.float32)
    with torch.inference_mode():
        whole = model(torch.from_numpy(mel)[None])[0].numpy()
    plain = streamed(model, mel, 4)
    pack_for_decoding(model)

    found = streamed(model, mel, 4)

    assert all(isinstance(block.packed, PackedConvNeXt) for block in model.blocks)
    assert not np.array_equal(found, plain)  # it was computed in another way
    np.testing.assert_allclose(found, whole, atol=1e-5 * np.abs(whole).max())
    for pieces in (1, 3, 8, 45):
        np.testing.assert_array_equal(streamed(model, mel, pieces), found)


@torch.no_grad()
@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("level", [1e-4, 1, 1e4])
@pytest.mark.parametrize("num_frames", [1, 5, 8, 31])
def test_a_vocoder_block_is_that_of_torch_at_any_level(
    num_frames: int, level: float, is_half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = create_vocoder(is_half=is_half).get_submodule("blocks.1")
    x, past = torch.randn(1, num_frames, 32) * level, torch.randn(1, 6, 32) * level
    given, states = x.clone(), ([past.clone()], [past.clone()])
    expected = block(x, states[0], 0)
    pack_for_decoding(block)
    with monkeypatch.context() as patch:
        patch.setattr(CausalConv, "forward", None)  # what torch would call
        found = block(x, states[1], 0)

    torch.testing.assert_close(x, given, atol=0, rtol=0)
    torch.testing.assert_close(found, expected, atol=2e-5 * max(1, level), rtol=1e-4)
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)


@torch.no_grad()
def test_what_the_compiled_vocoder_does_not_know_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    odd, model = (create_vocoder(is_half=True, width=width) for width in (36, 32))
    pack_for_decoding(odd)
    assert [block.packed for block in odd.blocks] == [None] * 3
    odd = create_vocoder(is_half=True)
    odd.get_submodule("blocks.0").up = Linear(32, 64, bias=False)
    odd.get_submodule("blocks.1").norm = torch.nn.LayerNorm(32, bias=False)
    pack_for_decoding(odd)
    assert [block.packed is None for block in odd.blocks] == [True, True, False]
    assert np.isfinite(streamed(odd, np.zeros((9, 100), np.float32), 9)).all()
    pack_for_decoding(model)

    def spectra(of: CausalVocos, batch: int, num_frames: int) -> Tensor:
        frames = torch.arange(batch * num_frames * 100).reshape(batch, num_frames, 100).sin()
        return of.spectrum(frames, frames, of.create_state(batch))

    with monkeypatch.context() as patch:
        patch.setattr(Kernels, "convnext_block", None)
        for batch, num_frames in ((2, 8), (1, 32)):
            spectra(model, batch, num_frames)
        for num_frames in (1, 31):
            with pytest.raises(TypeError):
                spectra(model, 1, num_frames)
        with torch.autocast("cpu", torch.bfloat16):
            spectra(model, 1, 8)
        model.train()
        spectra(model, 1, 8)


NAMES = [name for name, _ in ConvNeXtBlock(32, 64, 1.0).named_parameters()]


@torch.no_grad()
@pytest.mark.parametrize("is_replaced", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_that_is_written_to_is_the_one_used(name: str, is_replaced: bool) -> None:
    block, plain = (create_vocoder(is_half=True).get_submodule("blocks.1") for _ in range(2))
    pack_for_decoding(block)
    for it in (block, plain):
        owner, _, leaf = name.rpartition(".")
        part = it.get_submodule(owner)
        if is_replaced:
            setattr(part, leaf, torch.nn.Parameter(getattr(part, leaf) * 1.5))
        else:
            getattr(part, leaf).mul_(1.5)
    x, past = torch.randn(1, 8, 32), torch.randn(1, 6, 32)
    torch.testing.assert_close(block(x, [past], 0), plain(x, [past], 0))
    assert isinstance(block, ConvNeXtBlock)
    block.pack()  # its layers are not packed again: a block must not be made of what they were
    torch.testing.assert_close(block(x, [past], 0), plain(x, [past], 0), atol=1e-5, rtol=1e-4)


def test_convolutions_of_few_frames_are_those_of_many() -> None:
    torch.manual_seed(0)
    for conv in (CausalConv(32, 32, groups=32), CausalConv(24, 32)):
        x = torch.randn(3, 60, conv.conv.in_channels)
        whole = conv(x, None, 0)
        few = conv(x[:, :20], None, 0)
        torch.testing.assert_close(few, whole[:, :20], atol=1e-6, rtol=1e-5)
        gradients = [torch.autograd.grad(it[:, :20].square().sum(), list(conv.parameters())) for it in (whole, few)]
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_a_hop_that_does_not_divide_the_window_streams() -> None:
    torch.manual_seed(0)
    model = CausalVocos(CausalVocosConfig(preset="whisper16", width=32, hidden=64, num_layers=2)).eval()
    mel = np.random.default_rng(0).standard_normal((29, model.mel_config.num_bands)).astype(np.float32)
    with torch.inference_mode():
        whole = model(torch.from_numpy(mel)[None])[0].numpy()

    np.testing.assert_allclose(streamed(model, mel, 5), whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("index", range(11))
@pytest.mark.parametrize("change", [-1, 1])
def test_parts_of_a_vocoder_block_of_another_size_are_refused(index: int, change: int) -> None:
    """Three frames of width 16, hidden 24."""
    shapes = [(3, 16), (6, 16), (7, 16), (16,), (16,), (16,), (16, 24), (24,), (24, 16), (16,), (16,)]
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    _kernels.convnext_block(24, 1e-6, *arrays)

    arrays = [np.ones(shape, np.float32) for shape in shapes]
    arrays[index] = np.ones(arrays[index].size + change, np.float32)
    for hidden in (24, 0, -24):
        with pytest.raises(ValueError, match="do not fit"):
            _kernels.convnext_block(hidden, 1e-6, *arrays)
    np.testing.assert_array_equal(arrays[0], 1)
