"""The report's section "Robustness" and its figure."""

import pandas as pd

from tfdetect.evaluation import predictions, stability
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.calibration.conformal import Band
from tfdetect.pages.robustness import Robustness, robustness_section
from tfdetect.plots.robustness import robustness


def predicted(probabilities, label=lambda number: number % 2):
    rows = [(f"<b>{n}.png", label(n), str(n), "gan", "test", 0, p, p, 0.0) for n, p in enumerate(probabilities)]
    return pd.DataFrame(rows, columns=[*predictions.COLUMNS, "probability", "log_odds"])


def sweep(calibration=None, **options):
    """Return a sweep of 40 files, all judged correctly, of which every fourth is called fake after compression."""
    before = predicted([0.1, 0.9] * 20, **options)
    after = {"none": before, "jpeg(90)": before, "jpeg(30)": predicted([0.8, 0.9, 0.1, 0.9] * 10, **options),
             "flip|blur(1)": predicted([], **options)}  # fmt: skip
    rows, flips = [], []
    for text, table in after.items():
        row, changed = stability.compare(before, table, 0.5, calibration)
        strength = float(text[5:7]) if text.startswith("jpeg") else None
        rows.append({"corruption": text, "curve": "jpeg(quality)", "strength": strength, **row, "failed": 40 - row["n"]})
        flips.append(changed.assign(corruption=text))
    return Robustness(pd.DataFrame(rows), pd.concat(flips, ignore_index=True))


def test_it_shows_each_corruption_and_the_files_that_flip():
    found = sweep()
    page = robustness_section(found, robustness(found.table.iloc[1:]))
    assert "<b>Most verdicts change after jpeg(30): 25 % of 40 files, 10 to fake and 0 to real.</b>" in page
    assert "<td>flip|blur(1)</td>" in page and "10 of 40 files get another verdict after at least one corruption." in page
    assert "&lt;b&gt;0.png" in page and "<b>0.png" not in page and page.count("image/png") == 1
    assert robustness_section(None, None) == ""


def test_it_says_if_no_verdict_changes():
    found = sweep()
    calm = Robustness(found.table.iloc[:2], found.flips.head(0))
    page = robustness_section(calm, None)
    assert "<b>No verdict changes after any of them.</b>" in page and "<p>None.</p>" in page


def test_one_class_has_no_auc_but_verdicts():
    found = sweep(label=lambda number: 0)
    assert found.table["auc"].isna().all() and found.metrics["robustness"]["jpeg(30)"]["auc"] is None
    page = robustness_section(found, robustness(found.table.iloc[1:]))
    assert "25 % of 40 files" in page and "&ndash;" in page


def test_the_figure_has_a_panel_for_each_curve_and_one_for_chains():
    figure = robustness(sweep().table.iloc[1:])
    curve, chains = [axes for axes in figure.axes if axes.axison]
    assert curve.lines[0].get_xdata().tolist() == [30, 90] and curve.lines[0].get_label() == "AUC"
    assert [label.get_text() for label in chains.get_yticklabels()] == ["flip\n|blur(1)"]


def test_with_a_band_the_files_that_become_inconclusive_have_columns_of_their_own():
    found = sweep(Calibration(10.0, -5.0, 0.5, band=Band(0.9, 0.75, 0.85)))  # scores are probabilities
    page = robustness_section(found, figure := robustness(found.table.iloc[1:]))
    assert "0 % of 40 files change side, 0 to fake and 0 to real, and 25 % become inconclusive.</b>" in page
    assert "<th>became inconclusive</th>" in page and "jpeg(30) (inconclusive)" in page
    assert "verdicts that became inconclusive" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "became inconclusive" not in robustness_section(sweep(), None)
