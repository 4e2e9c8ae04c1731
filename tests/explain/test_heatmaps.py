"""Heat-maps: hot where the score comes from, and the check that tells a true map from a wrong one."""

import numpy as np
import pytest

from tfdetect.explain import heatmaps
from tfdetect.pages import explanation

HEIGHT, WIDTH = 48, 64


def red_patch(clips):
    """Scores by the red in rows 8..15, columns 40..55 of the last frame, less the green in rows 32..47, columns 0..15."""
    last = clips[:, -1].astype(np.float32)
    return last[:, 8:16, 40:56, 0].mean(axis=(1, 2)) - 0.5 * last[:, 32:48, :16, 1].mean(axis=(1, 2))


@pytest.fixture
def clip():
    """Two grey frames with a red and a green patch where `red_patch` looks, and another red one where it does not."""
    out = np.full((2, HEIGHT, WIDTH, 3), 60, np.uint8)
    out[:, 8:16, 40:56, 0] = out[:, 36:44, 40:56, 0] = out[:, 32:48, :16, 1] = 240
    return out


def test_hot_is_what_speaks_for_fake_cold_what_speaks_for_real_and_else_nothing(clip):
    found = heatmaps.occlusion_map(red_patch, clip, cells=8)
    assert found.shape == (HEIGHT, WIDTH) and found.dtype == np.float32
    hot, cold = (np.unravel_index(at, found.shape) for at in (found.argmax(), found.argmin()))
    # Within half a square: one that lies inside an even patch hides nothing, for it has its colour.
    assert 5 <= hot[0] < 19 and 36 <= hot[1] < 60 and found[hot] > 0
    assert cold[0] >= 29 and cold[1] < 20 and found[cold] < 0
    assert (found[36:44, 40:56] == 0).all(), "red, but the score does not look there"


def test_occlusion_by_hand(rng):
    clip = rng.integers(0, 256, (1, 4, 4, 3), np.uint8)

    def judge(clips):
        return clips[:, 0, :, :, 0].astype(np.float32).sum(axis=(1, 2))

    total, taken = np.zeros((4, 4)), np.zeros((4, 4))
    for row in range(3):
        for column in range(3):
            place = np.s_[row : row + 2, column : column + 2]
            hidden = clip[0, ..., 0][place].astype(float)
            taken[place] += (hidden - np.round(hidden.mean())).sum()
            total[place] += 1
    np.testing.assert_allclose(heatmaps.occlusion_map(judge, clip, cells=2), taken / total, rtol=1e-5)


@pytest.mark.parametrize("height, width, cells", [(48, 64, 8), (50, 33, 7), (5, 9, 5), (16, 16, 1)])
def test_the_squares_cover_every_pixel_and_are_alike(height, width, cells):
    masks = heatmaps.square_masks(height, width, cells)
    assert masks.shape == ((2 * cells - 1) ** 2, height, width) and masks.any(axis=0).all()
    size = masks.sum(axis=(1, 2))
    assert size.min() >= height * width // cells**2 and size.max() <= (height / cells + 2) * (width / cells + 2)
    with pytest.raises(ValueError, match="Squares per side must be 1 to"):
        heatmaps.square_masks(height, width, min(height, width) + 1)


def test_many_squares_are_judged_in_small_batches(clip):
    seen = []
    heatmaps.occlusion_map(lambda clips: seen.append(len(clips)) or red_patch(clips), clip, cells=8)
    assert sum(seen) == 15**2 + 1 and max(seen) <= heatmaps.BATCH_SIZE


def test_the_check_tells_a_true_map_from_a_wrong_one(clip):
    true = heatmaps.occlusion_map(red_patch, clip)
    hot, elsewhere = heatmaps.deletion_check(red_patch, clip, true)
    assert hot > 100 and hot > elsewhere + 50
    wrong, elsewhere = heatmaps.deletion_check(red_patch, clip, -true)
    assert wrong < 0, "it covers what speaks for real"
    assert heatmaps.deletion_check(red_patch, clip, true) == heatmaps.deletion_check(red_patch, clip, true), "drawn places are the same again"


def test_a_figure_for_each_kind_of_map(rng):
    frames = rng.integers(0, 256, (3, 32, 40, 3), np.uint8)
    shape = frames.shape[:3]
    for method, maps in (("occlusion", rng.normal(size=shape)), ("error", rng.random(shape)), ("error", np.zeros(shape))):
        figure = explanation.figure(frames, maps, method)
        assert len(figure.axes) == 9
        assert len(explanation.figure(frames[:1], maps[:1], method).axes) == 3
        both = figure.axes[6].images[0].get_array()
        assert both.shape == (32, 40, 3) and both.min() >= 0 and both.max() <= 1
    assert "<b>" not in explanation.section("<b>", "said <i>", frames, maps, "error")
