"""The section "What it learnt" of a report."""

import numpy as np

from tfdetect.pages.learnt import Learnt, Mistake, Picture, learnt_section
from tfdetect.plots import standard

EVIL = "<script>&\""
IMAGE = np.zeros((8, 12, 3), np.uint8)
STRESS = {key: {"n": 40, "n_real": 20, "n_fake": 20, "auc": 0.9 - place / 10, "auc_interval": [0.85 - place / 10, 0.95]}
          for place, key in enumerate(standard.STRESS_NAMES)}  # fmt: skip


def test_it_shows_each_alteration_the_shortcuts_and_the_neighbours_with_their_classes():
    mistake = Mistake(Picture(f"a/test{EVIL}", 1, EVIL, IMAGE), 0.034, [Picture(f"b/near{EVIL}", 0, "camera", IMAGE)] * 3)
    equalised = {"n": 38, "auc": 0.512, "auc_interval": [0.4, 0.6]}
    learnt = Learnt(STRESS, f"Above {EVIL}", equalised, f"As they are {EVIL}", 280, [mistake], "Compared were 9 files.")
    page = learnt_section(learnt, 0.656, standard.stress(STRESS, 0.656))
    assert "40 of 280 test files" in page and "<td class=n>0.850 to 0.950</td>" in page and "equalised (see below)</td>" in page
    assert all(f"<td>{name}</td>" in page for name in (*standard.STRESS_NAMES.values(), "file properties alone (shortcuts)"))
    assert "<b>fake</b>, test, called real (probability 3.4 %)" in page and page.count("<b>real</b>, training") == 3
    assert page.count("image/jpeg") == 4 and page.count("image/png") == 1 and standard.caption("stress") in page
    assert "<script" not in page and "near&lt;script&gt;" in page and "b/near" not in page


def test_parts_without_content_are_left_out():
    assert learnt_section(None, 0.6, None) == learnt_section(Learnt(), 0.6, None) == ""
    page = learnt_section(Learnt(STRESS, "", {}, "Nothing to equalise.", 40, [], "No test file is misjudged."), None, None)
    assert "No test file is misjudged." in page and "Nearest" not in page and "file properties alone" not in page
    one_class = learnt_section(Learnt(mistakes=[Mistake(Picture("a", 1, "", IMAGE), 0.1, [])]), 0.6, None)
    assert "Altered" not in one_class and "Nearest training files" in one_class
