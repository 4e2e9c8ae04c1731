import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tfdetect.evaluation import metrics, predictions
from tfdetect.pages import html
from tfdetect.pages.report import MAX_MISTAKES, MAX_ROWS, Report, cautions, verdict, write
from tfdetect.plots import standard

EVIL = "<script>alert('1')</script>&\".mp4"


def table(reals, fakes, gap, split="test", frames=1, seed=0):
    random = np.random.default_rng(seed)
    rows = [(f"{split}{i}{EVIL}", int(i >= reals), f"{split}{i}", ("camera", "<b>gan")[i >= reals], split, frame,
             random.normal() + gap * (i >= reals)) for i in range(reals + fakes) for frame in range(frames)]
    out = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return out.assign(probability=1 / (1 + np.exp(gap / 2 - out["score"])))


def judged(reals=60, fakes=60, gap=3.0, **options):
    return metrics.summarise(table(reals, fakes, gap, **options), 0.5)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything on it, and hostile text in every slot."""
    both = pd.concat([table(60, 60, 3.0, "validation", frames=2), table(60, 60, 3.0, frames=2)])
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (480, 640, 3)).astype(np.uint8)
    wrong = [(f"wrong{i}{EVIL}", i % 2, EVIL, 0.9 - 0.8 * (i % 2), noise) for i in range(40)]
    report = Report(
        name=f"run {EVIL}", detector=EVIL, warnings=[f"random backbone {EVIL}"],
        metrics={split: metrics.summarise(both[both["split"] == split], 0.5) for split in ("validation", "test")},
        figures=standard.standard(both, 0.5) | {"history": standard.history(pd.DataFrame({"epoch": [1, 2], "loss": [2, 1]}))},
        most_wrong=wrong, data=pd.concat([both, both.assign(split="train")]),
        failures=[(f"broken{i}{EVIL}", f"reason{i} {EVIL}") for i in range(73)], notes=[(f"odd {EVIL}", EVIL)],
        extra_figures={EVIL: Figure()},
        extra_tables={EVIL: pd.DataFrame({EVIL: [EVIL, None], "x": [0.123456, np.nan]})},
        command=f"python train.py {EVIL}", settings={"train": {"seed": 7, EVIL: EVIL}}, versions={"keras": "3.15"})
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(path, report)
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside_and_stays_small(page):
    assert not re.search(r"https?://", page)
    assert all(target.startswith("data:image/") for target in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"' >]+)", page))
    assert not re.search(r"<link|@import|url\(", page)
    assert len(page) < 3e6


def test_hostile_text_is_escaped_everywhere(page):
    assert "<script" not in page
    assert "<b>gan" not in page
    assert page.count("&lt;script&gt;") > 50
    assert "alert('1')" not in page  # the quote is escaped too, or an attribute could be closed


def test_the_page_is_well_formed(page):
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


def test_warnings_come_before_the_verdict(page):
    assert 0 < page.index("random backbone") < page.index("In short")


def test_failures_are_counted_and_the_first_are_listed(page):
    assert f"73 files, the first {MAX_ROWS} of them here." in page
    assert page.count("reason") - page.count("reason</th>") == MAX_ROWS
    assert "73 files could not be read or scored" in page
    assert "<p>1 file.</p>" in page
    assert "odd &lt;script" in page


def test_everything_given_is_on_the_page(page):
    for text in ("All numbers", "test, per frame", "By source", "Real, but called fake", "Fake, but called real",
                 "train.seed", "python train.py", "3.15", "0.123", standard.caption("roc"), "precision of fake", "F1 of real"):
        assert text in page, text
    assert re.search(r"of \d+ real files \d+ are called real and \d+ fake; of \d+ fake files \d+ are called fake", page)
    assert page.count("image/jpeg") == 2 * MAX_MISTAKES
    assert page.count("image/png") == len(standard.STANDARD) + 2


def test_a_bare_report_has_no_empty_sections(tmp_path):
    write(tmp_path / "r.html", Report(name="bare \udcff", metrics={"test": judged()}))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["In short", "All numbers", "By source"]
    assert "per frame" not in page
    assert "There are no validation files" in page


def test_the_tiles_and_the_base_rate_are_counted_right(tmp_path):
    """4 of 50 reals flagged, 45 of 50 fakes found; at one fake in a hundred, 0.9 in 0.9 + 99 * 0.08 flags is right."""
    labels = [0] * 50 + [1] * 50
    scores = [0.9] * 4 + [0.1] * 46 + [0.8] * 45 + [0.2] * 5
    rows = [(str(i), label, str(i), "", "test", 0, score)
            for i, (label, score) in enumerate(zip(labels, scores, strict=True))]
    frames = pd.DataFrame(rows, columns=predictions.COLUMNS).assign(probability=scores)
    write(tmp_path / "r.html", Report(name="r", metrics={"test": metrics.summarise(frames, 0.5)}))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<b>8 of 100</b><span>real files falsely flagged</span><small>4 of 50</small>" in page
    assert "<b>90 of 100</b><span>fakes found</span><small>45 of 50</small>" in page
    assert "<b>91 %</b><span>decided right</span><small>91 of 100; always naming the larger class gets 50 %" in page
    assert f"about {100 * 0.9 / (0.9 + 99 * 0.08):.1f} of 100 flagged" in page


def test_no_false_flag_among_few_reals_proves_little(tmp_path):
    """None of 50 leaves room for 3 of 50: then 1 in 1 + 99 * 0.06 flags is right."""
    rows = [(str(i), int(i >= 50), str(i), "", "test", 0, float(i >= 50)) for i in range(100)]
    frames = pd.DataFrame(rows, columns=predictions.COLUMNS).assign(probability=[row[-1] for row in rows])
    write(tmp_path / "r.html", Report(name="r", metrics={"test": metrics.summarise(frames, 0.5)}))
    assert f"anything from {100 / (1 + 99 * 0.06):.1f} to 100" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_one_mistake_in_thousands_does_not_read_as_none():
    assert "over 99.9 of 100" in verdict(judged() | {"auc": 0.99999})
    assert "100 of 100" in verdict(judged() | {"auc": 1.0})
    assert "99.7 of 100" in verdict(judged() | {"auc": 0.997})


@pytest.mark.parametrize(("gap", "expected"), [
    (3.0, "better than chance."), (0.0, "no better than chance cannot be ruled out"), (-3.0, "wrong way round")])
def test_verdict_follows_the_interval(gap, expected):
    assert expected in verdict(judged(gap=gap))


def test_verdict_without_two_classes_or_groups_promises_nothing():
    assert "of the 60 real files in the test real. That alone says little" in verdict(judged(fakes=0))
    without = metrics.summarise(table(0, 60, 3.0).drop(columns="probability"), None)
    assert verdict(without).startswith("Nothing can be said")
    assert "too few independent groups" in verdict(judged(reals=1, fakes=1))


def test_cautions():
    good = judged()
    assert cautions({"test": good, "validation": good}) == []

    def said(test=good, validation=good, failures=0):
        return " ".join(cautions({"test": test, "validation": validation}, failures))

    assert "tiny: 49 real" in said(test=judged(reals=49))
    assert "interval is wide" in said(test=judged(gap=0.5))
    assert "holds real files only" in said(validation=judged(fakes=0))
    assert "holds fake files only" in said(validation=judged(reals=0))
    assert "not all carries over" in said(test=judged(gap=1.0))
    assert "no calibration" in said(test=metrics.summarise(table(60, 60, 3.0).drop(columns="probability"), None))
    assert "no width" in said(test=judged(gap=30.0))
    assert "fewer than half of the fakes from <b>gan" in said(test=metrics.summarise(table(60, 60, 3.0), 0.95))
    assert "3 files could not" in said(failures=3)
    fakes = said(test=judged(reals=0))
    assert "holds fake files only, 60 of them: no AUC" in fakes and "tiny" not in fakes
    assert "share of reals that pass" in said(test=judged(fakes=0, reals=20)) and "tiny" in said(test=judged(fakes=0, reals=20))


def test_a_shortcut_stands_beside_the_test_and_is_warned_of(tmp_path):
    found = {"test": judged(), "validation": judged(split="validation")}
    write(tmp_path / "a.html", Report("run", found, shortcuts={"jpeg_quality": 0.91, "all": 0.88},
                                       suspects=[("jpeg_quality", 0.91), ("all", 0.88)]))
    page = (tmp_path / "a.html").read_text()
    assert "<b>0.880</b><span>shortcut AUC" in page
    assert "The jpeg quality of a file can tell fake from real here, with an AUC of 0.910" in page
    write(tmp_path / "b.html", Report("run", found, shortcuts={"width": 0.6, "all": 0.55}))
    assert "can tell fake from real here" not in (tmp_path / "b.html").read_text()


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'test'"):
        write(tmp_path / "r.html", Report(name="r", metrics={"validation": judged()}))
    picture = np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="height, width, 3"):
        write(tmp_path / "r.html", Report("r", {"test": judged()}, most_wrong=[("p", 0, "s", 0.9, picture)]))


def test_a_figure_that_is_drawn_already_is_shown_from_its_file(tmp_path):
    wide, narrow = Figure((8, 2)), Figure((4, 4))
    paths = standard.save_plots(tmp_path, {"wide": wide, "narrow": narrow})
    assert html.figure_section("t", [("a", wide), ("b", narrow)]) == html.figure_section("t", [("a", paths["wide"]), ("b", paths["narrow"])])
    assert ["class=wide" in html.figure_section("t", [("", path)]) for path in paths.values()] == [True, False]
