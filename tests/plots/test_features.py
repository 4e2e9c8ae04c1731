import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from tfdetect.files import plural
from tfdetect.plots import features as plots_features
from tfdetect.plots import style


@pytest.fixture
def features(rng):
    """Return features (60, 4) with variances 9, 4, 1 and 0.01, rotated, and labels from the sign of the first."""
    unrotated = rng.normal(size=(60, 4)) * [3, 2, 1, 0.1]
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    return unrotated @ rotation + 5, (unrotated[:, 0] > 0).astype(int)


@pytest.fixture
def splits(rng):
    labels = rng.integers(0, 2, 200)
    probabilities = np.clip(0.5 + 0.3 * (labels - 0.5) + 0.2 * rng.normal(size=200), 0, 1)
    return {"train": (labels[:120], probabilities[:120]), "validation": (labels[120:150], probabilities[120:150]),
            "test": (labels[150:], probabilities[150:])}  # fmt: skip


def shares(features):
    """Return the variance share of each component, computed by NumPy's SVD."""
    values = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    return values / values.sum()


def text_of(figure):
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.xaxis.label, axes.yaxis.label)]
    texts += [axes.get_title(loc="left") for axes in figure.axes]
    return " ".join(texts + [text.get_text() for axes in figure.axes if axes.legend_ for text in axes.legend_.texts])


def test_principal_components_match_the_svd(features):
    points, labels = features
    first, second = shares(points)[:2]
    figure = plots_features.pca(points, labels)
    texts = text_of(figure)
    assert f"first component, {first:.1%}" in texts and f"second component, {second:.1%}" in texts
    drawn = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(drawn.var(axis=0, ddof=1), np.sort(np.linalg.eigvalsh(np.cov(points.T)))[:1:-1])
    assert f"real ({(labels == 0).sum()})" in texts and f"fake ({(labels == 1).sum()})" in texts


def test_points_have_the_colour_of_their_class(rng):
    """With two distant groups, all points left of zero have one colour and all points right of it the other."""
    labels = np.arange(40) % 2
    cloud = plots_features.pca(rng.normal(size=(40, 3)) + 50 * labels[:, None], labels).axes[0].collections[0]
    left = np.asarray(cloud.get_offsets())[:, 0] < 0
    colors = [np.unique(cloud.get_facecolors()[side][:, :3], axis=0) for side in (left, ~left)]
    assert len(colors[0]) == len(colors[1]) == 1 and (colors[0] != colors[1]).any()


def test_explained_variance_is_cumulative_and_marks_ninety_percent(features):
    points, _ = features
    curve, mark = plots_features.explained_variance(points).axes[0].lines
    np.testing.assert_allclose(curve.get_ydata(), np.cumsum(shares(points)))
    needed = int((np.cumsum(shares(points)) < 0.9).sum() + 1)
    assert mark.get_xdata()[0] == needed
    row = plots_features.explained_variance_table(points).iloc[0]
    assert row["variance share of the first component"] == pytest.approx(shares(points)[0])
    assert (row["components for 90% of the variance"], row["dimensions"], row["files"]) == (needed, 4, 60)
    assert row["components for 99% of the variance"] == (np.cumsum(shares(points)) < 0.99).sum() + 1


def test_more_dimensions_than_files(rng):
    points = rng.normal(size=(10, 200))
    assert plots_features.explained_variance_table(points)["components for 90% of the variance"][0] <= 9
    assert plots_features.pca(points, np.arange(10) % 2).axes[0].collections


def test_tsne_preserves_neighbours_and_is_deterministic(rng):
    points = np.concatenate([rng.normal(size=(20, 6)), rng.normal(size=(20, 6)) + 30])
    labels = np.repeat([0, 1], 20)

    def draw(seed):
        cloud = plots_features.tsne(points, labels, seed).axes[0].collections[0]
        return np.asarray(cloud.get_offsets()), cloud.get_facecolors()

    positions, colors = draw(1)
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2) + 1e9 * np.eye(40)
    assert (colors == colors[distance.argmin(axis=1)]).all(), "two distant groups do not mix"
    np.testing.assert_array_equal(positions, draw(1)[0])


@pytest.mark.parametrize(("real", "fake", "size", "expected"), [
    (900, 100, 200, (100, 100)), (900, 50, 200, (150, 50)), (30, 900, 200, (30, 170)), (0, 900, 200, (0, 200)),
    (50, 40, 200, (50, 40)), (900, 900, 201, (101, 100))])  # fmt: skip
def test_balanced_sample_has_half_of_each_class_if_possible(real, fake, size, expected):
    labels = np.repeat([0, 1], [real, fake])
    places = plots_features.balanced_sample(labels, size, seed=3)
    assert tuple(np.bincount(labels[places], minlength=2)) == expected and len(set(places)) == len(places)
    np.testing.assert_array_equal(places, plots_features.balanced_sample(labels, size, seed=3))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_files_give_a_message(count):
    points, labels = np.arange(6.0).reshape(3, 2)[:count], np.array([0, 1, 1])[:count]
    for figure in (plots_features.pca(points, labels), plots_features.tsne(points, labels)):
        assert "needs at least 3 files" in text_of(figure)
        figure.draw_without_rendering()
    assert plots_features.explained_variance_table(points)["dimensions"][0] == 2
    assert count == 2 or plots_features.explained_variance_table(points)["variance share of the first component"][0] is None


def test_constant_features_one_class_and_one_dimension_do_not_raise(rng):
    labels = np.arange(8) % 2
    for figure in (plots_features.pca(np.ones((8, 3)), labels), plots_features.tsne(np.ones((8, 3)), labels),
                   plots_features.explained_variance(np.ones((8, 3)))):
        assert "the same features" in text_of(figure)
    assert plots_features.explained_variance_table(np.ones((8, 3)))["components for 90% of the variance"][0] is None
    assert "2 features each" in text_of(plots_features.pca(np.arange(8.0)[:, None], labels))
    assert "real (0)" in text_of(plots_features.pca(rng.normal(size=(8, 3)), np.ones(8)))
    for count in (3, 4, 9):
        plots_features.tsne(rng.normal(size=(count, 3)), np.zeros(count)).draw_without_rendering()


def test_distance_histograms_have_area_one(rng):
    before, after = (rng.random(50), 1 + rng.random(50)), (rng.random(30), 9 * rng.random(30))
    figure = plots_features.distance_histograms(before, after)
    for axes in figure.axes:
        bars = axes.containers[0]
        assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1)
    assert "100.0%" in figure.axes[0].legend_.get_title().get_text()
    texts = text_of(plots_features.distance_histograms(([], []), (np.ones(3), np.ones(3))))
    assert "no triplets" in texts and "same class: mean 1" in texts
    with pytest.raises(ValueError, match="after training"):
        plots_features.distance_histograms(before, (rng.random(3), rng.random(4)))
    with pytest.raises(ValueError, match="finite"):
        plots_features.distance_histograms(([np.nan], [1]), after)


def test_metrics_by_split_match_scikit_learn(splits):
    table = plots_features.metrics_by_split(splits, 0.5)
    assert len(table) == 6
    for name, (labels, probabilities) in splits.items():
        rows = table[table["split"] == name]
        expected = precision_recall_fscore_support(labels, probabilities >= 0.5, labels=[0, 1])
        np.testing.assert_allclose(rows[["precision", "recall", "F1", "files"]].to_numpy(float).T, expected)
        assert list(rows["AUC"]) == [pytest.approx(roc_auc_score(labels, probabilities))] * 2
        assert list(rows["accuracy"]) == [pytest.approx(((probabilities >= 0.5) == labels).mean())] * 2


def test_confusion_matrices_are_drawn_side_by_side(splits):
    figure = plots_features.confusion_matrices(splits, 0.5)
    assert [axes.get_title(loc="left").split(":")[0] for axes in figure.axes] == ["train", "validation", "test"]
    labels, probabilities = splits["test"]
    texts = [text.get_text() for text in figure.axes[2].texts]
    assert texts[1] == plural(((labels == 0) & (probabilities < 0.5)).sum(), "file")
    assert texts[3] == plural(((labels == 0) & (probabilities >= 0.5)).sum(), "file")


def test_bars_are_accuracy_and_means_over_both_classes(splits):
    axes = plots_features.metric_bars(splits, 0.5).axes[0]
    assert [text.get_text() for text in axes.legend_.texts] == ["train", "validation", "test"]
    for (labels, probabilities), bars in zip(splits.values(), axes.containers, strict=True):
        decided = probabilities >= 0.5
        expected = [(decided == labels).mean(), *precision_recall_fscore_support(labels, decided, average="macro")[:3]]
        np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
    lone = plots_features.metric_bars({"test": (np.ones(4, int), np.ones(4))}, 0.5).axes[0]
    assert [text.get_text() for text in lone.texts] == ["100.0%", "", "", ""], "a class without files has no mean"


def test_one_class_and_empty_splits_give_empty_metrics_and_a_message(splits):
    fakes = {**splits, "test": (np.ones(4, int), np.array([0.1, 0.9, 0.9, 0.9])), "validation": ([], [])}
    table = plots_features.metrics_by_split(fakes, 0.5).set_index(["split", "class"])
    assert table.loc[("test", "fake"), "recall"] == 0.75 and pd.isna(table.loc[("test", "fake"), "AUC"])
    assert pd.isna(table.loc[("test", "real"), "precision"]) and pd.isna(table.loc[("validation", "fake"), "accuracy"])
    assert "there are no files" in text_of(plots_features.confusion_matrices(fakes, 0.5))


@pytest.mark.parametrize("call", [
    lambda: plots_features.pca(np.ones((4, 2)), [0, 1]),
    lambda: plots_features.pca(np.ones(4), [0, 1, 0, 1]),
    lambda: plots_features.explained_variance([[1.0, np.nan]]),
    lambda: plots_features.tsne(np.ones((2, 2)), [0, 2]),
    lambda: plots_features.metrics_by_split({"test": ([0, 1], [0.5])}, 0.5),
    lambda: plots_features.metrics_by_split({"test": ([0, 1], [0.5, 1.5])}, 0.5),
    lambda: plots_features.confusion_matrices({"test": ([0, 2], [0.5, 0.5])}, 0.5),
    lambda: plots_features.confusion_matrices({}, 0.5),
    lambda: plots_features.metric_bars({}, 0.5),
])  # fmt: skip
def test_invalid_input_raises_value_error(call):
    with pytest.raises(ValueError, match="got|Look for NaN"):
        call()


def test_every_figure_has_a_caption():
    for plot in (plots_features.pca, plots_features.explained_variance, plots_features.tsne, plots_features.distance_histograms,
                 plots_features.confusion_matrices, plots_features.metric_bars):  # fmt: skip
        assert len(style.caption(plot)) > 40 and "van der Maaten" not in style.caption(plot)
