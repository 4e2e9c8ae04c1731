"""The verdict of the report in one line, what the detector is not fit for, and the next steps: one test for each case."""

import pytest

from tfdetect.pages.advice import (
    Standing,
    against_shortcuts,
    grade,
    next_steps,
    shows_skill,
    standing,
    strongest_shortcut,
    unfit_uses,
)
from tfdetect.pages.content import Report
from tfdetect.pages.report import write

GOOD = {"auc": 0.95, "auc_interval": [0.92, 0.97], "n": 200, "n_real": 100, "n_fake": 100, "n_groups": 100,
        "confusion": {"tn": 90, "fp": 10, "tp": 90, "fn": 10}}  # fmt: skip
CHANCE = {"auc": 0.525, "auc_interval": [0.45, 0.6]}
SEEN = {"named": ["gan", "swap"], "auc": 0.95, "auc_interval": [0.9, 1.0]}


def report(test=None, **content):
    return Report("run", {"test": GOOD | (test or {})}, **content)


@pytest.mark.parametrize("test, shortcut, expected", [
    ({"auc": None, "auc_interval": None}, None, Standing.UNMEASURED),
    ({"auc_interval": None}, None, Standing.TOO_SMALL),
    ({"n_groups": 7, "auc_interval": [1.0, 1.0]}, None, Standing.TOO_SMALL),
    ({"n_groups": 8}, None, Standing.BETTER),
    ({"auc": 0.1, "auc_interval": [0.05, 0.2]}, None, Standing.REVERSED),
    (CHANCE, None, Standing.CHANCE),
    (CHANCE, ("all", 0.675), Standing.CHANCE),
    ({"auc": 1.0, "auc_interval": [1.0, 1.0]}, ("all", 1.0), Standing.SHORTCUT),
    ({}, ("all", 0.92), Standing.SHORTCUT),
    ({}, ("all", 0.919), Standing.BETTER),
    ({"seen": SEEN, "unseen": {"auc_interval": [0.5, 0.7]}}, None, Standing.SEEN_ONLY),
    ({"seen": SEEN, "unseen": {"auc_interval": None}}, None, Standing.SEEN_ONLY),
    ({"seen": SEEN, "unseen": {"auc_interval": [0.51, 0.7]}}, None, Standing.BETTER)])  # fmt: skip
def test_the_standing_is_the_first_reason_for_doubt(test, shortcut, expected):
    assert standing(GOOD | test, shortcut) is expected


@pytest.mark.parametrize("test, content, expected", [
    ({}, {}, "Better than chance."),
    ({}, {"shortcuts": {"all": 0.6}}, "Better than chance and than file properties."),
    ({"shortcut_intervals": {"all": [0.5, 0.69]}}, {"shortcuts": {"all": 0.6}}, "Better than chance and than file properties."),
    ({"shortcut_intervals": {"all": [0.5, 0.999]}}, {"shortcuts": {"all": 0.6}}, "Better than chance."),
    ({"seen": SEEN}, {}, "Better than chance, on fakes of sources it knows; others were not measured."),
    ({"seen": SEEN, "unseen": SEEN}, {}, "Better than chance, also on fakes of sources it never saw."),
    ({"seen": SEEN, "unknown": SEEN}, {}, "Better than chance."),
    ({"auc": 1.0, "auc_interval": [1.0, 1.0]}, {"shortcuts": {"all": 1.0}},
     "Not shown to be better than file properties that are no evidence of a forgery."),
    (CHANCE, {"shortcuts": {"all": 0.675}}, "Not shown to be better than chance.")])  # fmt: skip
def test_the_grade_says_it_in_a_line(test, content, expected):
    assert grade(report(test, **content)) == expected


@pytest.mark.parametrize("test, content, expected", [
    ({}, {}, True), (CHANCE, {}, False), ({}, {"shortcuts": {"all": 0.99}}, False),
    ({"auc": None, "auc_interval": None}, {}, False), ({"seen": SEEN, "unseen": {"auc_interval": None}}, {}, True)])  # fmt: skip
def test_skill_is_shown_by_being_better_than_chance_and_file_properties(test, content, expected):
    assert shows_skill(report(test, **content)) is expected


def test_the_strongest_shortcut_is_all_properties_or_a_significant_one():
    assert strongest_shortcut(report()) is None
    aucs = {"all": 0.6, "width": 0.7}
    assert strongest_shortcut(report(shortcuts=aucs)) == ("all", 0.6)
    assert strongest_shortcut(report(shortcuts=aucs, suspects=[("width", 0.7)])) == ("width", 0.7)


@pytest.mark.parametrize("test, shortcut, expected", [
    (CHANCE, ("all", 0.675),
     "File size, format and colour alone reach more: an AUC of 0.675 against its 0.525 (0.450 to 0.600)."),
    ({}, ("width", 0.93),
     "The width of a file alone reaches an AUC of 0.930, within the interval of its own 0.950 (0.920 to 0.970)."),
    ({}, ("all", 0.6), "File size, format and colour alone reach less: an AUC of 0.600 against its 0.950 (0.920 to 0.970)."),
    ({"shortcut_intervals": {"all": [0.5, 0.7]}}, ("all", 0.6),
     "File size, format and colour alone reach less: an AUC of 0.600 (0.500 to 0.700) against its 0.950 (0.920 to 0.970)."),
    ({"shortcut_intervals": {"all": [0.8, 0.93]}}, ("all", 0.9),
     "File size, format and colour alone reach less: an AUC of 0.900 (0.800 to 0.930) against its 0.950 (0.920 to 0.970). The "
     "intervals overlap, so the difference may be due to the choice of test files."),
    ({"auc_interval": None}, ("all", 0.6), "File size, format and colour alone reach an AUC of 0.600."),
    ({"auc": None}, ("all", 0.6), ""),
    ({}, None, "")])  # fmt: skip
def test_the_comparison_with_shortcuts(test, shortcut, expected):
    assert against_shortcuts(GOOD | test, shortcut) == expected


NO_FALSE = {"confusion": {"tn": 100, "fp": 0, "tp": 90, "fn": 10}}
UNLIKE = {"verdicts": {"precision": None, "unfamiliar": {"level": 0.05, "share": 0.4}}}


@pytest.mark.parametrize("test, content, expected", [
    (NO_FALSE, {}, []),
    # of 1000 files 10 are fake, 9 of them found, and 99 of 990 reals called fake: 99 / 108 are real
    ({}, {}, ["where 1 % are, 91.7 % of those that it calls fake are real"]),
    ({"verdicts": {"precision": 0.25, "prevalence": 0.1}}, {}, ["where 10 % are, 75 % of those"]),
    ({"verdicts": {"precision": 0.9, "prevalence": 0.1}}, {}, []),
    (CHANCE, {}, ["for any decision: this test does not show"]),
    ({"auc": None, "n_fake": 0, "confusion": None}, {}, ["no fake files, so it is not known whether it finds fakes"]),
    ({"auc": None, "n_real": 0, "confusion": None}, {}, ["no real files, so it is not known how often it calls real"]),
    ({}, {"shortcuts": {"all": 0.95}}, ["on files that were all saved the same way"]),
    (NO_FALSE | {"seen": SEEN}, {}, ["on fakes of other sources than it was tested on (gan and swap)"]),
    (NO_FALSE | {"seen": SEEN, "unseen": {"auc_interval": None, "named": ["new"]}}, {}, ["on fakes of new, or of others"]),
    (NO_FALSE | UNLIKE, {}, ["on files like these without fitting it to them: 40 % are unlike its training data"])])  # fmt: skip
def test_unfit_uses(test, content, expected):
    found = unfit_uses(report(test, **content))
    assert len(found) == len(expected) and all(part in text for part, text in zip(expected, found, strict=True))


@pytest.mark.parametrize("test, content, expected", [
    ({}, {"epochs": (3, 10)}, []),
    ({}, {"epochs": (10, 10)}, ["the last of 10 epochs was the best. Repeat the command of the training with "
                                "`--resume --train.epochs 20`"]),
    ({}, {"suspects": [("width", 0.7)], "settings": {"data": {"path": "my data"}}}, ["'my data' --out ALIKE --equalise`"]),
    ({"auc": 1.0, "auc_interval": [1.0, 1.0]}, {"shortcuts": {"all": 1.0}}, ["DATA --out ALIKE --equalise`"]),
    (CHANCE | {"auc_interval": [0.48, 0.56]}, {"settings": {"detector": {"name": "cnn"}}}, ["Try another detector"]),
    (CHANCE | {"auc_interval": [0.48, 0.56]}, {"settings": {"detector": {"name": "clip"}}}, []),
    ({"auc": 0.1, "auc_interval": [0.05, 0.1]}, {"settings": {"detector": {"name": "clip"}}}, ["Check the labels"]),
    ({"n_real": 49}, {}, ["Test it on more people, videos or scenes than these 100"]),
    ({"auc_interval": [0.8, 0.95]}, {}, ["Test it on more"]),
    ({"auc_interval": None}, {}, ["Test it on more"]),
    ({"auc": None, "auc_interval": None, "n_fake": 0}, {}, ["Test it on fake files as well"]),
    ({"seen": SEEN}, {}, ["train it without one of its sources, `--data.hold_out swap`"]),
    ({"seen": SEEN | {"named": ["gan"]}}, {}, ["`evaluate` it on those of another generator"]),
    ({"seen": SEEN, "unseen": {"auc_interval": None}}, {}, ["Train it on fakes of more generators"]),
    (UNLIKE, {}, ["Fit its verdicts to 50 to 200 files"])])  # fmt: skip
def test_next_steps(test, content, expected):
    found = next_steps(report(test, **content))
    assert len(found) == len(expected) and all(part in text for part, text in zip(expected, found, strict=True))


def test_a_detector_of_other_origin_is_not_to_be_trained():
    assert next_steps(report(CHANCE | {"seen": SEEN}, epochs=(3, 3), origin="A program.")) == [
        "Test it on more people, videos or scenes than these 100: an interval gets half as wide with four times as many."]


def test_the_page_has_the_grade_first_and_escapes_names_in_commands(tmp_path):
    from tests.pages.test_report import summary

    write(tmp_path / "r.html", Report("r", {"test": summary()}, epochs=(2, 2), shortcuts={"all": 1.0},
                                      settings={"data": {"path": "<i>`x`"}}))  # fmt: skip
    page = (tmp_path / "r.html").read_text()
    line = page.index("Not shown to be better than file properties")
    assert page.index("<h2>Summary") < line < page.index('<p class="lead">') < page.index("<h3>Do not use it</h3>")
    assert "<code>--resume --train.epochs 4</code>" in page and "<i>" not in page and "--equalise" in page
