import cmath

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from tfdetect.plots import reconstruction, style
from tfdetect.plots.style import FAKE, INK, REAL


@pytest.fixture
def validations(rng):
    """Return {epoch: (labels, scores)} for twelve epochs with improving scores."""
    labels = rng.integers(0, 2, 80)
    return {epoch: (labels, rng.normal(size=80) + 0.2 * epoch * labels) for epoch in range(1, 13)}


def text_of(figure):
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label)]
    texts += [axes.get_title(loc="left") for axes in figure.axes]
    legends = [axes.legend_ for axes in figure.axes if axes.legend_]
    return " ".join(texts + [text.get_text() for legend in legends for text in (*legend.texts, legend.get_title())])


def images(rng, count, height=8, width=12):
    originals = rng.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
    return originals, originals + rng.normal(0, 20, originals.shape)


def test_densities_have_area_one_and_common_bins(rng):
    scores = np.concatenate([rng.normal(size=900), rng.normal(2, 3, size=400), [1e6]])  # one outlier
    axes = reconstruction.score_densities(scores, np.repeat([0, 1], [900, 401]), "error").axes[0]
    real, fake = axes.containers
    for bars in (real, fake):
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    assert [bar.get_x() for bar in real] == [bar.get_x() for bar in fake] and len(real) == 40
    assert real[39].get_x() < 20, "an outlier does not set the bins"
    assert real[0].get_facecolor()[:3] == pytest.approx([int(REAL[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    assert "real (900)" in text_of(axes.figure) and "fake (401)" in text_of(axes.figure) and "error" in axes.get_xlabel()


@pytest.mark.parametrize("value", [0.0, 7.0, -1e9])
def test_densities_of_equal_scores_have_area_one(value):
    bars = reconstruction.score_densities(np.full(6, value), [0, 1, 0, 1, 0, 1]).axes[0].containers[0]
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)


def test_few_epochs_are_drawn_as_one_curve_each(validations):
    few = {epoch: validations[epoch] for epoch in (5, 2, 9)}
    (axes,) = reconstruction.precision_recall_by_epoch(few, 5).axes
    for line, epoch in zip(axes.lines[:3], (2, 5, 9), strict=True):
        assert line.get_label().startswith(f"epoch {epoch}: AP {average_precision_score(*validations[epoch]):.3f}")
        assert (line.get_color() == INK) == ("kept" in line.get_label()) == (line.get_linewidth() > 2) == (epoch == 5)
    assert axes.lines[3].get_ydata()[0] == pytest.approx(validations[1][0].mean())


@pytest.mark.parametrize("chosen", [1, 4, 6, 12])
def test_many_epochs_are_drawn_as_a_selection_of_curves_and_all_areas(validations, chosen):
    curves, areas = reconstruction.precision_recall_by_epoch(validations, chosen).axes
    shown = [int(line.get_label().split(":")[0].removeprefix("epoch ")) for line in curves.lines[:-1]]
    assert shown == sorted(set(shown)) and {1, chosen, 12} <= set(shown) and len(shown) <= 8
    np.testing.assert_array_equal(areas.lines[0].get_xdata(), range(1, 13))
    expected = [average_precision_score(*validations[epoch]) for epoch in range(1, 13)]
    np.testing.assert_allclose(areas.lines[0].get_ydata(), expected)
    assert areas.lines[1].get_xdata()[0] == chosen
    assert areas.lines[1].get_ydata()[0] == pytest.approx(average_precision_score(*validations[chosen]))


def test_average_precision_table_matches_scikit_learn(validations):
    table = reconstruction.average_precision_table(dict(reversed(validations.items())))
    assert list(table["epoch"]) == list(range(1, 13))
    precisions = [average_precision_score(*validations[epoch]) for epoch in range(1, 13)]
    np.testing.assert_allclose(table["average precision"], precisions)
    np.testing.assert_allclose(table["AUC"], [roc_auc_score(*validations[epoch]) for epoch in range(1, 13)])
    assert pd.isna(reconstruction.average_precision_table({1: ([1, 1], [0.2, 0.3])})["AUC"][0])
    assert reconstruction.average_precision_table({}).empty


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.3, 0.5, 0.777, 1.0])
def test_f1_matches_scikit_learn(rng, threshold):
    splits = {}
    for name, count in (("validation", 60), ("test", 90)):
        labels = rng.integers(0, 2, count)
        splits[name] = labels, np.round(np.clip(0.5 + 0.3 * (labels - 0.5) + 0.2 * rng.normal(size=count), 0, 1), 2)  # with ties
    figure = reconstruction.f1_over_threshold(splits, threshold)
    *curves, mark = figure.axes[0].lines
    assert mark.get_xdata()[0] == threshold
    for (name, kind, color), line in zip([(name, kind, color) for name in splits for kind, color in ((1, FAKE), (0, REAL))],
                                         curves, strict=True):  # fmt: skip
        labels, probabilities = splits[name]
        at, values = line.get_xdata(), line.get_ydata()
        assert len(at) <= 400 and threshold in at and line.get_color() == color
        assert line.get_linestyle() == ("--" if name == "validation" else "-")
        for place in (*range(0, len(at), 23), int(np.flatnonzero(at == threshold)[0])):
            expected = f1_score(labels, probabilities >= at[place], pos_label=kind, zero_division=0)
            assert values[place] == pytest.approx(expected)
        here = f1_score(labels, probabilities >= threshold, pos_label=kind, zero_division=0)
        assert line.get_label() == f"{name}, {('real', 'fake')[kind]}: {here:.3f}"


def test_a_split_of_one_class_is_noted_in_the_legend():
    figure = reconstruction.f1_over_threshold({"validation": ([0, 0], [0.1, 0.2]), "test": ([0, 1], [0.1, 0.9])}, 0.5)
    assert "validation: not drawn" in text_of(figure) and "test, fake: 1.000" in text_of(figure)


def test_spectrum_matches_the_definition(rng):
    error = rng.random((4, 4, 3))
    result = reconstruction.log_spectrum(error)
    for u, v, w in np.ndindex(4, 4, 3):
        wave = sum(error[y, x, c] * cmath.exp(-2j * cmath.pi * ((u - 2) * y / 4 + (v - 2) * x / 4 + (w - 1) * c / 3))
                   for y, x, c in np.ndindex(4, 4, 3))  # fmt: skip
        assert result[u, v, w] == pytest.approx(np.log(1 + abs(wave)), abs=1e-9)


@pytest.mark.parametrize("shape", [(8, 8, 3), (7, 10, 3)])
def test_spectrum_matches_a_transform_axis_by_axis(rng, shape):
    error = rng.random(shape) * 255
    wave = error
    for axis, length in enumerate(shape):
        wave = np.roll(np.fft.fft(wave, axis=axis), length // 2, axis=axis)
    result = reconstruction.log_spectrum(error.astype(np.float32))
    np.testing.assert_allclose(result, np.log(1 + np.abs(wave)), atol=1e-3)
    assert result.shape == shape and np.unravel_index(result.argmax(), shape) == (shape[0] // 2, shape[1] // 2, 1)
    assert result.max() == pytest.approx(np.log(1 + error.sum()))


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (49, 49), (64, 64)])
@pytest.mark.parametrize("axis", [0, 1])
def test_power_of_a_cosine_is_in_the_right_bin(size, axis):
    bins, length = min(size) // 2, size[axis]
    places = np.indices(size)[axis]
    for cycles in (1, length // 4, length // 2):
        frequency = cycles / length
        power = reconstruction.radial_power(3 + np.cos(2 * np.pi * frequency * places)[None])[0]
        ring = power.argmax()
        assert ring / (2 * bins) < frequency + 1e-9 and frequency <= (ring + 1) / (2 * bins) + 1e-9
        assert len(power) == bins and np.sort(power)[-2] < power[ring] - 6


@pytest.mark.parametrize("size", [10, 64, 80, 98])
def test_every_whole_number_of_cycles_has_its_own_bin(size):
    """Even if cycles / size * size rounds to slightly above cycles."""
    places = np.arange(size)
    waves = [np.broadcast_to(np.cos(2 * np.pi * cycles * places / size), (size, size)) for cycles in range(1, size // 2 + 1)]
    np.testing.assert_array_equal(reconstruction.radial_power(np.stack(waves)).argmax(axis=1), np.arange(size // 2))


def test_radial_power_matches_a_manual_computation(rng):
    """For 4 x 4 pixels, bin 0 holds the four frequencies of 1/4 along one axis and bin 1 the others up to 1/2, inclusive."""
    error = rng.random((2, 4, 4, 3))
    powers = np.abs(np.fft.fft2(error.mean(-1))) ** 2
    inner = [(0, 1), (0, 3), (1, 0), (3, 0)]
    outer = [(1, 1), (1, 3), (3, 1), (3, 3), (0, 2), (2, 0)]
    expected = np.log10([[np.mean([power[at] for at in ring]) for ring in (inner, outer)] for power in powers])
    np.testing.assert_allclose(reconstruction.radial_power(error), expected)
    np.testing.assert_allclose(reconstruction.radial_power(error.mean(-1)), expected)
    np.testing.assert_allclose(reconstruction.radial_power(error + 100), expected, err_msg="the mean is removed")
    assert (reconstruction.radial_power(np.full((1, 4, 4, 3), 9, np.float32)) == -9).all()
    assert reconstruction.radial_power(np.zeros((0, 9, 6, 3))).shape == (0, 3)


def test_radial_spectrum_shows_medians_and_bands(rng):
    errors, labels = rng.random((30, 8, 8, 3)), np.arange(30) % 3 % 2
    axes = reconstruction.radial_spectrum(errors, labels).axes[0]
    powers = reconstruction.radial_power(errors)
    for line, band, kind, color in zip(axes.lines, axes.collections, (0, 1), (REAL, FAKE), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [0.0625, 0.1875, 0.3125, 0.4375])
        np.testing.assert_allclose(line.get_ydata(), np.median(powers[labels == kind], axis=0))
        edge = band.get_paths()[0].vertices[:, 1]
        assert edge.min() == pytest.approx(np.percentile(powers[labels == kind], 10, axis=0).min())
        assert edge.max() == pytest.approx(np.percentile(powers[labels == kind], 90, axis=0).max())
        assert line.get_color() == color
    assert "real (20)" in text_of(axes.figure) and "fake (10)" in text_of(axes.figure)


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (10, 10), (12, 10)])
def test_gallery_has_four_rows_of_at_most_ten_images(rng, count, columns):
    originals, rebuilt = images(rng, count)
    rebuilt[0, 0, 0] = [300, -20, 10.4]
    figure = reconstruction.gallery(originals, rebuilt, "Fakes for $5 and $6")
    assert len(figure.axes) == 4 * columns and not any(len(axes.get_xticks()) for axes in figure.axes)
    assert figure.get_suptitle().replace("\n", " ") == "Fakes for $5 and $6"
    rows = [[axes.images[0] for axes in figure.axes[columns * row : columns * (row + 1)]] for row in range(4)]
    last = columns - 1
    np.testing.assert_array_equal(rows[0][last].get_array(), originals[last])
    assert list(rows[1][0].get_array()[0, 0]) == [255, 0, 10] and rows[1][0].get_array().dtype == np.uint8
    difference = np.abs(originals - rebuilt)[:10]
    np.testing.assert_allclose(rows[2][last].get_array(), difference[last].mean(-1))
    assert {image.get_clim() for image in rows[2]} == {(0, difference.mean(-1).max())}
    assert f"white: {difference.mean(-1).max():.3g}\ngrey levels" in figure.axes[2 * columns].get_ylabel()
    np.testing.assert_allclose(rows[3][last].get_array(), reconstruction.log_spectrum(difference[last])[..., 1])
    assert len({image.get_clim() for image in rows[3]}) == 1
    figure.draw_without_rendering()


def test_gallery_of_perfect_reconstructions_or_no_images(rng):
    originals, _ = images(rng, 2)
    reconstruction.gallery(originals, originals.astype(float), "Same").draw_without_rendering()
    assert "no images" in text_of(reconstruction.gallery(originals[:0], originals[:0], "None"))


def test_latent_dimensions_are_sorted_and_counted():
    figure, table = reconstruction.latent_kl([0.5, 0.0, 2.0, 0.01, 0.02, -1e-9])
    curve, mark = figure.axes[0].lines
    np.testing.assert_array_equal(curve.get_ydata(), [2.0, 0.5, 0.02, 0.01, 1e-6, 1e-6])
    assert mark.get_ydata()[0] == reconstruction.ACTIVE_KL == 0.01 and figure.axes[0].get_yscale() == "log"
    assert list(table.columns) == ["latent dimensions", "active (KL above 0.01 nats)", "total KL in nats"]
    assert list(table.iloc[0]) == [6, 3, pytest.approx(2.53)]
    empty, row = reconstruction.latent_kl([])
    assert "no latent dimensions" in text_of(empty) and row["latent dimensions"][0] == 0
    reconstruction.latent_kl(np.zeros(5))[0].draw_without_rendering()


@pytest.mark.parametrize(("active", "dimensions", "expected"), [
    (0, 1, True), (1, 1, False), (0, 64, True), (1, 64, False), (1, 100, False), (1, 101, True), (7, 700, False),
    (0, 0, True)])  # fmt: skip
def test_posterior_has_collapsed_if_under_one_percent_is_active(active, dimensions, expected):
    assert reconstruction.has_collapsed(np.repeat([0.011, 0.01], [active, dimensions - active])) is expected


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1, 1]])
def test_one_class_gives_a_message(rng, labels):
    scores = rng.random(len(labels))
    for figure in (reconstruction.score_densities(scores, labels),
                   reconstruction.radial_spectrum(rng.random((len(labels), 8, 8, 3)), labels),
                   reconstruction.precision_recall_by_epoch({3: (labels, scores)}, 3),
                   reconstruction.f1_over_threshold({"test": (labels, scores)}, 0.5),
                   reconstruction.precision_recall_by_epoch({}, 3), reconstruction.f1_over_threshold({}, 0.5)):  # fmt: skip
        assert "needs real and fake files" in text_of(figure)
        figure.draw_without_rendering()


@pytest.mark.parametrize("call", [
    lambda: reconstruction.score_densities([1, 2], [0]),
    lambda: reconstruction.score_densities([1, np.nan], [0, 1]),
    lambda: reconstruction.average_precision_table({1: ([0, 2], [1, 2])}),
    lambda: reconstruction.precision_recall_by_epoch({1: ([0, 1], [1, 2])}, 2),
    lambda: reconstruction.f1_over_threshold({"test": ([0, 1], [0.5, 1.5])}, 0.5),
    lambda: reconstruction.f1_over_threshold({"test": ([0, 1], [0.5, 0.6])}, np.nan),
    lambda: reconstruction.gallery(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3)), ""),
    lambda: reconstruction.gallery(np.zeros((12, 4, 4, 3), np.uint8), np.zeros((11, 4, 4, 3)), ""),
    lambda: reconstruction.gallery(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 3)), ""),
    lambda: reconstruction.gallery(np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), np.nan), ""),
    lambda: reconstruction.log_spectrum(np.zeros((4, 4))),
    lambda: reconstruction.radial_power(np.zeros((4, 4))),
    lambda: reconstruction.radial_power(np.zeros((1, 1, 4))),
    lambda: reconstruction.radial_spectrum(np.zeros((2, 4, 4)), [0]),
    lambda: reconstruction.radial_spectrum(np.full((2, 4, 4), np.nan), [0, 1]),
    lambda: reconstruction.latent_kl([[1.0]]),
    lambda: reconstruction.has_collapsed([np.inf]),
])  # fmt: skip
def test_invalid_input_raises_value_error(call):
    with pytest.raises(ValueError, match="Expected|must be one of"):
        call()


def test_every_figure_has_a_caption():
    for plot in (reconstruction.score_densities, reconstruction.precision_recall_by_epoch, reconstruction.f1_over_threshold,
                 reconstruction.gallery, reconstruction.radial_spectrum, reconstruction.latent_kl):
        assert len(style.caption(plot)) > 40 and "`" not in style.caption(plot)
