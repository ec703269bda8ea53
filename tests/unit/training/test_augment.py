"""Augmentation: seeded, bounded, and nothing at all when everything is zero."""

import torch

from audiofoundation.features.augment import AugmentConfig, augment_wave, create_generator, mask_mel

CPU = torch.device("cpu")
WAVE = torch.randn(64, 400, generator=torch.Generator().manual_seed(0)) * 0.1


def test_zeros_change_nothing() -> None:
    mel = WAVE.reshape(64, 20, 20)
    assert torch.equal(augment_wave(WAVE, AugmentConfig(), create_generator(0, 0, CPU)), WAVE)
    assert torch.equal(mask_mel(mel, AugmentConfig(), create_generator(0, 0, CPU)), mel)


def test_the_same_seed_and_step_change_a_batch_alike_whatever_the_global_generator_does() -> None:
    config = AugmentConfig(gain_db=6, noise=0.01, flips_polarity=True, mask_bands=4, mask_frames=4)

    def augmented(seed: int, step: int) -> torch.Tensor:
        generator = create_generator(seed, step, CPU)
        return mask_mel(augment_wave(WAVE, config, generator).reshape(64, 20, 20), config, generator)

    first = augmented(1, 2)
    torch.manual_seed(99)
    assert torch.equal(augmented(1, 2), first)
    assert not torch.equal(augmented(1, 3), first)
    assert not torch.equal(augmented(2, 2), first)


def test_gain_stays_in_its_range_and_polarity_flips_some() -> None:
    config = AugmentConfig(gain_db=6, flips_polarity=True)
    ratio = (augment_wave(WAVE, config, create_generator(0, 0, CPU)) / WAVE).mean(1)
    assert 0.2 < (ratio < 0).float().mean() < 0.8
    gain_db = 20 * ratio.abs().log10()
    assert gain_db.abs().max() <= 6.01
    assert gain_db.std() > 1


def test_noise_is_as_strong_as_said() -> None:
    noise = augment_wave(WAVE, AugmentConfig(noise=0.5), create_generator(0, 0, CPU)) - WAVE
    strength = noise.std(1)
    assert strength.max() < 0.6
    assert strength.max() > 0.3
    assert strength.min() < 0.1


def test_masks_are_runs_of_bands_and_frames_no_longer_than_said() -> None:
    mel = torch.rand(64, 30, 40) + 1
    masked = mask_mel(mel, AugmentConfig(mask_bands=5), create_generator(0, 0, CPU)) != mel
    assert torch.equal(masked, masked[:, :1].expand_as(masked))
    widths = masked[:, 0].sum(1)
    assert widths.max() <= 6
    assert widths.float().mean() > 1
    frames = mask_mel(mel, AugmentConfig(mask_frames=3), create_generator(0, 0, CPU)) != mel
    assert torch.equal(frames, frames[..., :1].expand_as(frames))
