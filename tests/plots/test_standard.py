import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from tfdetect.evaluation import predictions
from tfdetect.plots import curves, standard


@pytest.fixture
def frames():
    random = np.random.default_rng(0)
    rows = [(f"{i}.png", i % 2, str(i), ("camera", f"g$x^{i % 3}")[i % 2], ("validation", "test")[i // 40], 0,
             random.normal() + 2 * (i % 2)) for i in range(80)]
    table = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return table.assign(probability=1 / (1 + np.exp(1 - table["score"])))


def text_of(figure):
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, axes.title)]
    return " ".join(texts + [text.get_text() for axes in figure.axes if axes.legend_ for text in axes.legend_.texts])


def test_every_standard_plot_is_drawn_saved_and_has_a_caption(frames, tmp_path):
    figures = standard.standard(frames, 0.5)
    assert tuple(figures) == standard.STANDARD
    assert all(isinstance(figure, Figure) and len(standard.caption(name)) > 40 for name, figure in figures.items())
    paths = standard.save_plots(tmp_path / "plots", {**figures, "my own/../x": Figure()})
    assert all(path.parent == tmp_path / "plots" and path.read_bytes().startswith(b"\x89PNG") for path in paths.values())
    assert pyplot.get_fignums() == []  # figures made by pyplot stay in memory until closed


@pytest.mark.parametrize("change", [
    lambda table: table.drop(columns="probability"),
    lambda table: table[table["label"] == 0],
    lambda table: table[table["label"] == 1],
    lambda table: table[table["split"] == "validation"],
    lambda table: table.iloc[40:42],
    lambda table: table.assign(score=1.0),
])
def test_plots_of_missing_or_constant_data_do_not_raise(frames, change):
    for figure in standard.standard(change(frames), 0.5).values():
        figure.draw_without_rendering()


def test_empty_plots_give_the_reason(frames):
    reals = frames[frames["label"] == 0]
    assert "Not drawn" in text_of(curves.roc(reals, 0.5))
    assert "Not drawn" in text_of(standard.sources(reals, 0.5))
    assert "Not drawn" in text_of(standard.reliability(reals, 0.5))
    assert "there are no test files" in text_of(standard.scores(reals[reals["split"] == "validation"], 0.5))
    assert "not calibrated" in text_of(standard.confusion(frames.drop(columns="probability"), 0.5))


def test_a_test_set_of_fakes_only_still_shows_the_validation_curves(frames):
    fakes = frames[(frames["split"] == "validation") | (frames["label"] == 1)]
    for plot in (curves.roc, curves.det, curves.precision_recall):
        figure = plot(fakes, 0.5)
        assert "Not drawn" not in text_of(figure) and "validation: " in text_of(figure)
    assert text_of(standard.confusion(fakes, 0.5)).count("–") == 2, "shares of an empty row are undefined"


def test_confusion_counts_only_test_files(frames):
    test = frames[frames["split"] == "test"]
    true_positives = ((test["probability"] >= 0.5) & (test["label"] == 1)).sum()
    assert f"{true_positives} files" in text_of(standard.confusion(frames, 0.5))
    assert f"{true_positives / 20:.1%}" in text_of(standard.confusion(frames, 0.5))


def test_history_marks_the_kept_epoch_and_omits_the_learning_rate():
    table = pd.DataFrame({"epoch": [1, 2, 3], "learning_rate": 0.1, "auc": [0.5, 0.6, 0.7], "val_auc": [0.5, 0.7, 0.6],
                          "loss": [3, 2, 1], "val_loss": [3, 2, 4]})
    figure = standard.history(table, picked=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "auc"]
    assert "kept: epoch 2" in text_of(figure)
    assert len(standard.history(table[["epoch", "loss"]]).axes) == 1


def test_caption_of_an_unknown_figure_is_empty():
    assert standard.caption("np") == standard.caption("latent space") == ""


def test_of_many_sources_the_worst_are_drawn_and_the_others_counted():
    """Source n has one fake, which scores above n of 40 reals."""
    rows = [(f"{n}.png", 0, f"r{n}", "camera", "test", 0, float(n)) for n in range(40)]
    rows += [(f"f{n}.png", 1, f"f{n}", f"gan{n}", "test", 0, n - 0.5) for n in range(41)]
    figure = standard.sources(pd.DataFrame(rows, columns=predictions.COLUMNS), None)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"gan{n} (1)" for n in range(30)] and figure.axes[0].yaxis_inverted(), "the worst is at the top"
    assert "the lowest 30 of 41" in figure.axes[0].get_title("left")
    assert "11 sources not drawn: AUC 0.750 to 1.000" in text_of(figure)
    assert figure.get_size_inches()[1] < 20
