"""What the embedded data set shows: each manipulation changes what it says, and nothing else."""

import numpy as np
import pytest

from tfdetect.data import sample
from tfdetect.data.sample import Sample


def twins(source: str, **settings: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return real and fake (frames, size, size, 3) before encoding, and the disc (size, size) in which they may differ."""
    spec = Sample(sources=(source,), count=1, **settings)
    real, fake = (sample.render_clip(spec, 0, name).astype(np.float32) for name in ("camera", source))
    scene = sample.Scene.draw(np.random.default_rng([spec.seed, 0]), spec.size)
    return real, fake, scene.mask(spec.size, np.zeros(2), 5.0 * spec.size / 64)[..., 0]


@pytest.mark.parametrize("source", ["swap", "upsample"])
@pytest.mark.parametrize("size", [64, 256])
def test_only_the_region_is_manipulated(source: str, size: int) -> None:
    real, fake, disc = twins(source, size=size, frames=2)
    assert np.array_equal(real[:, disc == 0], fake[:, disc == 0])
    assert np.abs(real - fake)[:, disc == 1].mean() > 5


def test_upsample_leaves_a_grid_of_four_pixels() -> None:
    real, fake, disc = twins("upsample")
    wave = sample.alternating_wave(64)
    grid = (wave[:, None] + wave) / 2 * (disc == 1)
    strength = [((clip.mean(axis=(0, 3)) * grid).sum() / (grid**2).sum()) for clip in (real, fake)]
    assert abs(strength[0]) < 3
    assert strength[1] == pytest.approx(sample.GRID, abs=3)


def test_swap_shows_another_scene_with_other_noise_and_the_same_colour() -> None:
    real, fake, disc = twins("swap")
    inside = [clip[:, disc == 1] for clip in (real, fake)]
    assert np.corrcoef(inside[0].mean(axis=0).ravel(), inside[1].mean(axis=0).ravel())[0, 1] < 0.7
    assert np.allclose(real.mean(axis=(1, 2)), fake.mean(axis=(1, 2)), atol=1)
    grain = [np.diff(clip, axis=0).std(axis=0).mean() for clip in inside]  # little motion, new grain
    assert grain[1] < 0.8 * grain[0]
    wave = np.broadcast_to(sample.alternating_wave(64), (64, 64))[disc == 1]
    stripes = [(clip.mean(axis=(0, 2)) * wave).mean() for clip in inside]
    assert abs(stripes[0]) < 3
    assert stripes[1] == pytest.approx(sample.STRIPES, abs=3)


def test_flicker_varies_over_time_but_not_in_a_single_frame() -> None:
    real, fake, disc = twins("flicker")
    assert np.array_equal(real[0], fake[0])  # the real twin keeps the state of the first frame
    steps = [np.abs(np.diff(clip[:, disc == 1].mean(axis=(1, 2)))).mean() for clip in (real, fake)]
    assert steps[1] > 5 * steps[0]


def test_exposure_equalises_the_mean_brightness() -> None:
    scene = sample.Scene.draw(np.random.default_rng(0), 64)
    dark, bright = (scene.render(64, 0, gain, np.zeros(2)) for gain in (-1.0, 1.0))
    assert np.abs(dark - bright).max() > 20
    assert np.allclose(dark.mean(axis=(0, 1)), bright.mean(axis=(0, 1)), atol=0.1)


def test_single_frames_of_flicker_and_real_twins_have_one_distribution() -> None:
    spec = Sample()
    fixed, varying = (
        [sample.draw_motion(np.random.default_rng(seed), spec, fixed)[0] for seed in range(2000)] for fixed in (True, False)
    )
    assert np.ptp(fixed, axis=1).max() == 0
    quantiles = np.linspace(0.05, 0.95, 7)
    assert np.allclose(np.quantile(np.stack(fixed)[:, 0], quantiles), np.quantile(varying, quantiles), atol=0.1)
