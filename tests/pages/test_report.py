import base64
import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tfdetect.evaluation import metrics, predictions
from tfdetect.pages import html
from tfdetect.pages.content import HeatMap
from tfdetect.pages.explanation import METHOD_NOTES
from tfdetect.pages.report import MAX_MISTAKES, MAX_ROWS, Report, cautions, verdict, write
from tfdetect.plots import standard

EVIL = "<script>alert('1')</script>&\".mp4"


def table(reals, fakes, gap, split="test", frames=1, seed=0):
    random = np.random.default_rng(seed)
    rows = [(f"{split}{i}{EVIL}", int(i >= reals), f"{split}{i}", ("camera", "<b>gan")[i >= reals], split, frame,
             random.normal() + gap * (i >= reals)) for i in range(reals + fakes) for frame in range(frames)]
    out = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return out.assign(probability=1 / (1 + np.exp(gap / 2 - out["score"])))


def summary(reals=60, fakes=60, gap=3.0, **options):
    return metrics.summarise(table(reals, fakes, gap, **options), 0.5)


def write_hostile(path):
    """Write a page with every section, and hostile text in every field."""
    both = pd.concat([table(60, 60, 3.0, "validation", frames=2), table(60, 60, 3.0, frames=2)])
    both.loc[(both["label"] == 1) & (both.groupby("label").cumcount() % 4 < 2), "source"] = "other gan"
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (480, 640, 3)).astype(np.uint8)
    mistakes = [(f"wrong{i}{EVIL}", i % 2, EVIL, 0.9 - 0.8 * (i % 2), noise) for i in range(40)]
    report = Report(
        name=f"run {EVIL}", detector=EVIL, warnings=[f"random backbone {EVIL}", "/name" * 60],
        metrics={split: metrics.summarise(both[both["split"] == split], 0.5) for split in ("validation", "test")},
        figures=standard.standard(both, 0.5) | {"history": standard.history(pd.DataFrame({"epoch": [1, 2], "loss": [2, 1]}))},
        mistakes=mistakes, data=pd.concat([both, both.assign(split="train")]),
        heat_maps={mistakes[0][0]: HeatMap(noise, "occlusion", EVIL)}, leaks=[("copies", EVIL)], machine={"system": EVIL},
        failures=[(f"broken{i}{EVIL}", f"reason{i} {EVIL}") for i in range(73)], notes=[(f"odd {EVIL}", EVIL)],
        extra_figures={EVIL: Figure()},
        extra_tables={EVIL: pd.DataFrame({EVIL: [EVIL, None], "x": [0.123456, np.nan]})},
        command=f"python train.py {EVIL}", settings={"train": {"seed": 7, EVIL: EVIL}}, versions={"keras": "3.15"})
    write(path, report)


@pytest.fixture(scope="module")
def page(report_page):
    return report_page.read_text(encoding="utf-8")


def test_page_is_self_contained_and_small(page):
    assert not re.search(r"https?://", page)
    assert all(target.startswith("data:image/") for target in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"' >]+)", page))
    assert not re.search(r"<link|@import|url\(", page)
    assert len(page) < 3e6


def test_nothing_but_the_one_script_can_run(page):
    """The policy names the hash of the only script, and nothing else that runs is in the page; a browser proves the hash."""
    policy = re.search(r'http-equiv="Content-Security-Policy"\s+content="([^"]*)"', page)[1]
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    sources = dict(part.split(None, 1) for part in policy.split(";"))
    assert script == html.SCRIPT.read_text() and sources["default-src"] == "'none'"
    assert sources["script-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    assert sources["img-src"] == "data:" and "connect-src" not in sources
    rest = page.replace(script, "")
    assert rest.lower().count("<script") == 1 and not re.search(r"<[^>]*\son\w+\s*=|javascript:|<iframe|<object|<embed", rest)


def test_hostile_text_is_escaped_everywhere(page):
    assert "<b>gan" not in page
    assert page.count("&lt;script&gt;") > 50
    assert "alert('1')" not in page  # quotes are escaped too; otherwise they could end an attribute


def test_page_is_well_formed(page):
    from html.parser import HTMLParser

    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "img", "br"}:
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Tags()
    parser.feed(page)
    assert parser.open == []


def test_warnings_precede_the_summary(page):
    assert 0 < page.index("random backbone") < page.index("<h2>Summary")


def test_failures_are_counted_and_the_first_are_listed(page):
    assert f"73 files; the first {MAX_ROWS} are listed." in page
    assert page.count("reason") - page.count("reason</th>") == MAX_ROWS
    assert "73 files could not be read or scored" in page
    assert "<p>1 file.</p>" in page
    assert "odd &lt;script" in page


def test_page_shows_all_content(page):
    for text in ("Metrics", "test, per frame", "Metrics by source", "Real files called fake", "Fakes called real",
                 "train.seed", "python train.py", "3.15", "0.123", standard.caption("roc"), "precision (fake)", "F1 (real)"):
        assert text in page, text
    sentence = r"Of \d+ real test files, \d+ are called real and \d+ fake; of \d+ fake test files, \d+ are called fake"
    assert re.search(sentence, page)
    assert page.count("image/jpeg") == 2 * MAX_MISTAKES + 1, "one has a heat-map"
    assert "Random seed: train.seed 7." in page and METHOD_NOTES["occlusion"] in page and "<h2>Leaks" in page
    assert page.count("image/png") == len(standard.STANDARD) + 2


def test_figures_have_intervals_marks_of_few_files_and_a_reason_where_there_is_none(tmp_path):
    for reals, marked in ((15, True), (60, False)):
        test = summary(reals, 60, 1.0)
        write(tmp_path / "r.html", Report(name="r", metrics={"test": test}))
        page, (low, high) = (tmp_path / "r.html").read_text(encoding="utf-8"), test["intervals"]["mcc"]
        assert f"<td>MCC</td><td{' class=n' * (not marked)}>{test['mcc']:.3f}{' *' * marked}</td>" in page
        assert f"<td class=n>{low:.3f} to {high:.3f}</td>" in page
        assert f"not measurable: needs 3,000 real files, got {reals}" in page


def test_a_report_of_metrics_without_intervals_is_written(tmp_path):
    """Validation metrics of a run may be those of its training, by an older version."""
    added = ("intervals", "few_files", "not_measurable", "mcc", "brier")
    old = {key: value for key, value in summary().items() if key not in added}
    write(tmp_path / "r.html", Report(name="r", metrics={"validation": old, "test": summary()}))
    assert "<td>MCC</td><td class=n>&ndash;</td>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_sources_have_intervals_and_a_mean(tmp_path):
    frames = table(60, 60, 1.0)
    frames.loc[frames.index[-30:], "source"] = "other"
    test = metrics.summarise(frames, 0.5)
    write(tmp_path / "r.html", Report(name="r", metrics={"test": test}))
    page, ends = (tmp_path / "r.html").read_text(encoding="utf-8"), test["macro_by_source"]["intervals"]["auc"]
    assert "<td>mean over 2 sources of fakes</td>" in page and f"{ends[0]:.3f} to {ends[1]:.3f}" in page


def test_minimal_report_has_no_empty_sections(tmp_path):
    write(tmp_path / "r.html", Report(name="minimal \udcff", metrics={"test": summary()}))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["Summary", "Metrics", "Metrics by source"]
    assert "per frame" not in page
    assert "There are no validation files" in page


def test_tiles_and_base_rate_match_a_manual_computation(tmp_path):
    """4 of 50 real files are flagged and 45 of 50 fakes found; if 1 % is fake, precision is 0.9 / (0.9 + 99 * 0.08)."""
    labels = [0] * 50 + [1] * 50
    scores = [0.9] * 4 + [0.1] * 46 + [0.8] * 45 + [0.2] * 5
    rows = [(str(i), label, str(i), "", "test", 0, score)
            for i, (label, score) in enumerate(zip(labels, scores, strict=True))]
    frames = pd.DataFrame(rows, columns=predictions.COLUMNS).assign(probability=scores)
    write(tmp_path / "r.html", Report(name="r", metrics={"test": metrics.summarise(frames, 0.5)}))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<b>8 %</b><span>false positive rate</span><small>4 of 50 real files called fake</small>" in page
    assert "<b>90 %</b><span>recall</span><small>45 of 50 fakes found</small>" in page
    assert "<b>91 %</b><span>accuracy</span><small>91 of 100 correct; 50 % by always guessing the larger class" in page
    assert f"about {100 * 0.9 / (0.9 + 99 * 0.08):.1f} % of the files called fake" in page


def test_no_false_positive_among_few_real_files_gives_a_wide_range(tmp_path):
    """None of 50 is compatible with a rate of 3 in 50: precision could be as low as 1 / (1 + 99 * 0.06)."""
    rows = [(str(i), int(i >= 50), str(i), "", "test", 0, float(i >= 50)) for i in range(100)]
    frames = pd.DataFrame(rows, columns=predictions.COLUMNS).assign(probability=[row[-1] for row in rows])
    write(tmp_path / "r.html", Report(name="r", metrics={"test": metrics.summarise(frames, 0.5)}))
    assert f"between {100 / (1 + 99 * 0.06):.1f} % and 100 %" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_one_mistake_in_thousands_is_not_rounded_to_none():
    assert "over 99.9 of 100" in verdict(summary() | {"auc": 0.99999})
    assert "100 of 100" in verdict(summary() | {"auc": 1.0})
    assert "99.7 of 100" in verdict(summary() | {"auc": 0.997})


@pytest.mark.parametrize(("gap", "expected"), [
    (3.0, "better than chance."), (0.0, "may be no better than chance"), (-3.0, "worse than chance")])
def test_verdict_follows_the_interval(gap, expected):
    assert expected in verdict(summary(gap=gap))


def test_verdict_without_two_classes_or_groups_makes_no_claim():
    assert "of the 60 real test files real. That alone says little" in verdict(summary(fakes=0))
    without = metrics.summarise(table(0, 60, 3.0).drop(columns="probability"), None)
    assert verdict(without).startswith("No verdict is possible")
    assert "too few independent groups" in verdict(summary(reals=1, fakes=1))
    assert verdict(summary(reals=3, fakes=3)).endswith("but 6 independent groups cannot tell that from chance.")


def test_cautions():
    good = summary()
    assert cautions({"test": good, "validation": good}) == []

    def cautions_for(test=good, validation=good, failures=0):
        return " ".join(cautions({"test": test, "validation": validation}, failures))

    assert "tiny: 49 real" in cautions_for(test=summary(reals=49))
    assert "AUC is wide" in cautions_for(test=summary(gap=0.5))
    assert "holds only real files" in cautions_for(validation=summary(fakes=0))
    assert "holds only fake files" in cautions_for(validation=summary(reals=0))
    assert "does not fully carry over" in cautions_for(test=summary(gap=1.0))
    assert "not calibrated" in cautions_for(test=metrics.summarise(table(60, 60, 3.0).drop(columns="probability"), None))
    assert "no width" in cautions_for(test=summary(gap=30.0))
    assert "fewer than half of the fakes from source '<b>gan'" in cautions_for(test=metrics.summarise(table(60, 60, 3.0), 0.95))
    assert "3 files could not" in cautions_for(failures=3)
    fakes = cautions_for(test=summary(reals=0))
    assert "holds only fake files (60): AUC is undefined" in fakes and "tiny" not in fakes
    reals = cautions_for(test=summary(fakes=0, reals=20))
    assert "share of real files called real" in reals and "tiny" in reals


def test_shortcut_auc_is_shown_with_a_warning(tmp_path):
    by_split = {"test": summary(), "validation": summary(split="validation")}
    write(tmp_path / "a.html", Report("run", by_split, shortcuts={"jpeg_quality": 0.91, "all": 0.88},
                                       suspects=[("jpeg_quality", 0.91), ("all", 0.88)]))
    page = (tmp_path / "a.html").read_text()
    assert "<b>0.880</b><span>shortcut AUC" in page
    assert "The JPEG quality of a file alone separates fake from real with AUC 0.910" in page
    write(tmp_path / "b.html", Report("run", by_split, shortcuts={"width": 0.6, "all": 0.55}))
    assert "separates fake from real" not in (tmp_path / "b.html").read_text()


def test_invalid_input_raises_value_error(tmp_path):
    with pytest.raises(ValueError, match="'test'"):
        write(tmp_path / "r.html", Report(name="r", metrics={"validation": summary()}))
    image = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="height, width, 3"):
        write(tmp_path / "r.html", Report("r", {"test": summary()}, mistakes=[("p", 0, "s", 0.9, image)]))


def test_figure_section_accepts_saved_figures(tmp_path):
    wide, narrow = Figure((8, 2)), Figure((4, 4))
    paths = standard.save_plots(tmp_path, {"wide": wide, "narrow": narrow})
    saved = html.figure_section("t", [("a", paths["wide"]), ("b", paths["narrow"])])
    assert html.figure_section("t", [("a", wide), ("b", narrow)]) == saved
    assert ["class=wide" in html.figure_section("t", [("", path)]) for path in paths.values()] == [True, False]
