"""A compiled block of the causal vocoder gives what torch gives, streamed or whole, and refuses what does not fit."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from audiofoundation.models.decoding import PackedConvNeXt
from audiofoundation.models.layers import pack_for_decoding
from audiofoundation.models.vocoder import CausalVocos, CausalVocosConfig, CausalVocosVocoder
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
@pytest.mark.parametrize("level", [1e-4, 1, 1e4])
@pytest.mark.parametrize("num_frames", [1, 5, 8])
def test_a_vocoder_block_is_that_of_torch_at_any_level(num_frames: int, level: float) -> None:
    block = create_vocoder(is_half=True).get_submodule("blocks.1")
    x, past = torch.randn(1, num_frames, 32) * level, torch.randn(1, 6, 32) * level
    given, states = x.clone(), ([past.clone()], [past.clone()])
    expected = block(x, states[0], 0)
    pack_for_decoding(block)
    found = block(x, states[1], 0)

    torch.testing.assert_close(x, given, atol=0, rtol=0)
    torch.testing.assert_close(found, expected, atol=2e-5 * max(1, level), rtol=1e-4)
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=0)


@torch.no_grad()
def test_what_the_compiled_vocoder_does_not_know_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    odd, model, other = (create_vocoder(is_half=True, width=width) for width in (36, 32, 32))
    pack_for_decoding(odd)
    assert [block.packed for block in odd.blocks] == [None] * 3
    pack_for_decoding(model)

    def spectra(of: CausalVocos, batch: int, num_frames: int) -> Tensor:
        frames = torch.arange(batch * num_frames * 100).reshape(batch, num_frames, 100).sin()
        return of.spectrum(frames, frames, of.create_state(batch))

    with monkeypatch.context() as patch:
        patch.setattr(Kernels, "convnext_block", None)
        for batch, num_frames in ((2, 8), (1, 40)):
            spectra(model, batch, num_frames)
        with pytest.raises(TypeError):
            spectra(model, 1, 8)
        with torch.autocast("cpu", torch.bfloat16):
            spectra(model, 1, 8)
        model.train()
        spectra(model, 1, 8)
    model.eval()
    for parameter in other.parameters():
        parameter.mul_(1.5)
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(spectra(model, 1, 8), spectra(other, 1, 8))


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
