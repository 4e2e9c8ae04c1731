import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from tfdetect.evaluation import predictions
from tfdetect.plots import standard


@pytest.fixture
def frames():
    random = np.random.default_rng(0)
    rows = [(f"{i}.png", i % 2, str(i), ("camera", f"g$x^{i % 3}")[i % 2], ("validation", "test")[i // 40], 0,
             random.normal() + 2 * (i % 2)) for i in range(80)]
    table = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return table.assign(probability=1 / (1 + np.exp(1 - table["score"])))


def words(figure):
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    return " ".join(texts + [text.get_text() for axes in figure.axes if axes.legend_ for text in axes.legend_.texts])


def test_every_standard_plot_is_drawn_saved_and_explained(frames, tmp_path):
    figures = standard.standard(frames, 0.5)
    assert tuple(figures) == standard.STANDARD
    assert all(isinstance(figure, Figure) and len(standard.caption(name)) > 40 for name, figure in figures.items())
    paths = standard.save_plots(tmp_path / "plots", {**figures, "my own/../x": Figure()})
    assert all(path.parent == tmp_path / "plots" and path.read_bytes().startswith(b"\x89PNG") for path in paths.values())
    assert pyplot.get_fignums() == []  # what pyplot makes stays in memory until somebody closes it


@pytest.mark.parametrize("change", [
    lambda table: table.drop(columns="probability"),
    lambda table: table[table["label"] == 0],
    lambda table: table[table["label"] == 1],
    lambda table: table[table["split"] == "validation"],
    lambda table: table.iloc[40:42],
    lambda table: table.assign(score=1.0),
])
def test_plots_of_what_is_missing_or_constant_say_so_and_do_not_fail(frames, change):
    for figure in standard.standard(change(frames), 0.5).values():
        figure.draw_without_rendering()


def test_blank_plots_give_the_reason(frames):
    reals = frames[frames["label"] == 0]
    assert "Not drawn" in words(standard.roc(reals, 0.5))
    assert "Not drawn" in words(standard.sources(reals, 0.5))
    assert "Not drawn" in words(standard.reliability(reals, 0.5))
    assert "holds no files" in words(standard.scores(reals[reals["split"] == "validation"], 0.5))
    assert "no calibration" in words(standard.confusion(frames.drop(columns="probability"), 0.5))


def test_a_test_of_fakes_alone_leaves_the_curves_of_validation(frames):
    fakes = frames[(frames["split"] == "validation") | (frames["label"] == 1)]
    for plot in (standard.roc, standard.precision_recall):
        figure = plot(fakes, 0.5)
        assert "Not drawn" not in words(figure) and "validation: A" in words(figure)
    assert words(standard.confusion(fakes, 0.5)).count("–") == 2, "no share of no reals"


def test_confusion_counts_only_the_test(frames):
    test = frames[frames["split"] == "test"]
    found = ((test["probability"] >= 0.5) & (test["label"] == 1)).sum()
    assert f"{found} files" in words(standard.confusion(frames, 0.5))
    assert f"{found / 20:.1%}" in words(standard.confusion(frames, 0.5))


def test_history_marks_the_kept_epoch_and_leaves_out_the_learning_rate():
    table = pd.DataFrame({"epoch": [1, 2, 3], "learning_rate": 0.1, "auc": [0.5, 0.6, 0.7], "val_auc": [0.5, 0.7, 0.6],
                          "loss": [3, 2, 1], "val_loss": [3, 2, 4]})
    figure = standard.history(table, picked=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "auc"]
    assert "kept: epoch 2" in words(figure)
    assert len(standard.history(table[["epoch", "loss"]]).axes) == 1


def test_caption_of_a_foreign_figure_is_empty():
    assert standard.caption("np") == standard.caption("latent space") == ""
