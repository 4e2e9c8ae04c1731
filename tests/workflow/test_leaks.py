"""The report says what connects training and test files."""

import pandas as pd

from tfdetect.workflow import dataset, leaks

COLUMNS = ["path", "group", "split", "sha", "error"]


def table(*rows):
    return pd.DataFrame([(f"{number}.png", *row, "") for number, row in enumerate(rows)], columns=COLUMNS)


def test_shared_groups_and_contents_are_counted():
    rows = [("a", "train", "1"), ("a", "test", "2"), ("b", "train", "3"), ("c", "test", "3"), ("d", "test", "3")]
    found = dict(leaks.find(table(*rows)))
    assert found == {"Groups in more than one split": "1 found", "Files of the same content in more than one split": "1 found"}
    assert set(dict(leaks.find(table(*rows[2:3], *rows[1:2]))).values()) == {"none found"}
    broken = table(*rows).assign(error=["", "no image", "", "", ""])
    assert dict(leaks.find(broken))["Groups in more than one split"] == "none found", "a file that is not used"


def test_what_the_searches_found_is_told_where_they_ran():
    judged = table(("a", "test", "1"))
    assert leaks.find(judged) == []
    judged.attrs |= {leaks.TRAINED_ON: leaks.left_out(2), dataset.NEAR: "none found"}
    assert [text for _, text in leaks.find(judged)] == ["none found", "2 files found, and left out"]
