"""Heat-maps are hot where the score comes from, and the deletion check detects wrong ones."""

import numpy as np
import pytest

from tfdetect.explain import heatmaps
from tfdetect.pages import explanation

HEIGHT, WIDTH = 48, 64


def red_patch(clips):
    """Return scores from the last frame: red in rows 8..15, columns 40..55 minus half the green in rows 32..47, columns 0..15."""
    last = clips[:, -1].astype(np.float32)
    return last[:, 8:16, 40:56, 0].mean(axis=(1, 2)) - 0.5 * last[:, 32:48, :16, 1].mean(axis=(1, 2))


@pytest.fixture
def clip():
    """Return two grey frames with a red and a green patch that `red_patch` looks at, and a red patch that it ignores."""
    out = np.full((2, HEIGHT, WIDTH, 3), 60, np.uint8)
    out[:, 8:16, 40:56, 0] = out[:, 36:44, 40:56, 0] = out[:, 32:48, :16, 1] = 240
    return out


def test_heat_is_positive_for_fake_negative_for_real_and_zero_elsewhere(clip):
    heatmap = heatmaps.occlusion_map(red_patch, clip, cells=8)
    assert heatmap.shape == (HEIGHT, WIDTH) and heatmap.dtype == np.float32
    hot, cold = (np.unravel_index(at, heatmap.shape) for at in (heatmap.argmax(), heatmap.argmin()))
    # Within half a square: a square inside a uniform patch changes nothing, because its mean is the patch's colour.
    assert 5 <= hot[0] < 19 and 36 <= hot[1] < 60 and heatmap[hot] > 0
    assert cold[0] >= 29 and cold[1] < 20 and heatmap[cold] < 0
    assert (heatmap[36:44, 40:56] == 0).all(), "red, but the score ignores it"


def test_occlusion_matches_a_manual_computation(rng):
    clip = rng.integers(0, 256, (1, 4, 4, 3), np.uint8)

    def score_clips(clips):
        return clips[:, 0, :, :, 0].astype(np.float32).sum(axis=(1, 2))

    covered, drops = np.zeros((4, 4)), np.zeros((4, 4))
    for row in range(3):
        for column in range(3):
            square = np.s_[row : row + 2, column : column + 2]
            hidden = clip[0, ..., 0][square].astype(float)
            drops[square] += (hidden - np.round(hidden.mean())).sum()
            covered[square] += 1
    np.testing.assert_allclose(heatmaps.occlusion_map(score_clips, clip, cells=2), drops / covered, rtol=1e-5)


@pytest.mark.parametrize("height, width, cells", [(48, 64, 8), (50, 33, 7), (5, 9, 5), (16, 16, 1)])
def test_squares_cover_every_pixel_and_have_similar_sizes(height, width, cells):
    masks = heatmaps.square_masks(height, width, cells)
    assert masks.shape == ((2 * cells - 1) ** 2, height, width) and masks.any(axis=0).all()
    size = masks.sum(axis=(1, 2))
    assert size.min() >= height * width // cells**2 and size.max() <= (height / cells + 2) * (width / cells + 2)
    with pytest.raises(ValueError, match="Squares per side must be 1 to"):
        heatmaps.square_masks(height, width, min(height, width) + 1)


def test_many_squares_are_scored_in_small_batches(clip):
    batch_sizes = []
    heatmaps.occlusion_map(lambda clips: batch_sizes.append(len(clips)) or red_patch(clips), clip, cells=8)
    assert sum(batch_sizes) == 15**2 + 1 and max(batch_sizes) <= heatmaps.BATCH_SIZE


def test_deletion_check_detects_a_wrong_map(clip):
    correct = heatmaps.occlusion_map(red_patch, clip)
    hot, elsewhere = first = heatmaps.deletion_check(red_patch, clip, correct)
    assert hot > 100 and hot > elsewhere + 50
    wrong, elsewhere = heatmaps.deletion_check(red_patch, clip, -correct)
    assert wrong < 0, "it hides what speaks for real"
    assert heatmaps.deletion_check(red_patch, clip, correct) == first, "the random shifts are deterministic"


def test_areas_of_deletion_and_insertion_match_a_manual_computation():
    """The score is the share of the ten columns that are still white; the fill of two colours is grey."""
    clip = np.zeros((1, 10, 10, 3), np.uint8)
    clip[:, :, ::2] = 255

    def white(clips):
        return (clips[:, 0, :, :, 0] == 255).mean(axis=(1, 2))

    heat = np.repeat(np.where(np.arange(10) % 2, -1.0, 1.0)[None] * 100 - np.arange(10), 10, axis=0)  # white columns first
    areas = heatmaps.curve_areas(white, clip, heat)
    # White columns alone are filled with white: nothing changes until the first black one is hidden, and then none is left.
    deletion = np.array([0.5] * 6 + [0.0] * 5)
    insertion = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert areas["deletion"] == pytest.approx(np.trapezoid(deletion) / 10)
    assert areas["insertion"] == pytest.approx(np.trapezoid(insertion) / 10)


def test_a_good_map_beats_a_random_one(clip):
    good = heatmaps.curve_areas(red_patch, clip, heatmaps.occlusion_map(red_patch, clip, 8))
    random = heatmaps.curve_areas(red_patch, clip, heatmaps.random_map(HEIGHT, WIDTH, 4))
    assert good["deletion"] < random["deletion"] - 10 and good["insertion"] > random["insertion"] + 10


def test_localisation_of_known_maps():
    region = np.zeros((2, 6, 8), bool)
    region[0, 1:3, 2:5] = region[1, 4:, 5:] = True
    good = region * np.array([1.0, 0.001])[:, None, None]
    assert heatmaps.localisation(good, region) == {"pixel_auc": 1.0, "pointed": 1.0}, "frame by frame, whatever their scale"
    assert heatmaps.localisation(good[::-1], region) == {"pixel_auc": pytest.approx(0.43, abs=0.01), "pointed": 0.0}
    flat = heatmaps.localisation(np.zeros((2, 6, 8)), region)
    assert flat == {"pixel_auc": 0.5, "pointed": pytest.approx(6 / 48)}
    region[1] = False
    assert heatmaps.localisation(good, region)["pixel_auc"] == 1.0 and heatmaps.localisation(good, region & False) == {}


def test_figure_of_each_kind_of_map(rng):
    frames = rng.integers(0, 256, (3, 32, 40, 3), np.uint8)
    shape = frames.shape[:3]
    for method, heat in (("occlusion", rng.normal(size=shape)), ("error", rng.random(shape)), ("error", np.zeros(shape)),
                         ("gradcam", rng.random(shape)), ("integrated_gradients", rng.normal(size=shape))):  # fmt: skip
        figure = explanation.figure(frames, heat, method)
        assert len(figure.axes) == 9
        assert len(explanation.figure(frames[:1], heat[:1], method).axes) == 3
        overlay = figure.axes[6].images[0].get_array()
        assert overlay.shape == (32, 40, 3) and overlay.min() >= 0 and overlay.max() <= 1
    assert "<b>" not in explanation.section("<b>", "said <i>", frames, heat, "error")
