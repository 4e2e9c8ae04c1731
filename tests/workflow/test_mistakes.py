"""The most wrong files of the report, and their heat-maps."""

import numpy as np
import pandas as pd

from tfdetect.evaluation import predictions
from tfdetect.workflow import mistakes


def table():
    """Five reals and five fakes of a detector that says the opposite, the later the more so; and a file of validation."""
    rows = [(f"{i}.png", i // 5, str(i), "s", "test", 0, (-1) ** (i // 5) * (1.0 + i % 5)) for i in range(10)]
    rows.append(("v.png", 0, "v", "s", "validation", 0, 9.0))
    out = pd.DataFrame(rows, columns=predictions.COLUMNS)
    return out.assign(probability=1 / (1 + np.exp(-out["score"])))


def load(path):
    """Return three frames as bright as the number of the file; the clip of 4.png is gone."""
    return None if path == "4.png" else np.full((3, 8, 8, 3), int(path[0]), np.uint8)


def draw(clip):
    if clip[0, 0, 0, 0] == 8:
        return None
    heat = np.zeros((3, 8, 8), np.float32)
    heat[:, 0, 0] = 2
    return clip, heat, "occlusion", f"check {clip[0, 0, 0, 0]}"


def test_the_worst_of_each_kind_have_a_heat_map():
    frames, maps = mistakes.most_wrong(table(), 0.5, load, draw)
    assert [frame[0] for frame in frames] == [f"{i}.png" for i in (3, 2, 1, 0, 9, 8, 7, 6, 5)], "the most wrong first"
    assert {path: found.check for path, found in maps.items()} == {
        "3.png": "check 3", "2.png": "check 2", "1.png": "check 1", "9.png": "check 9", "7.png": "check 7"}  # fmt: skip
    image = maps["3.png"].image
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8 and (image[1:, 1:] == 3).all()
    assert image[0, 0, 0] > 100 > image[0, 0, 2], "evidence for fake is orange"


def test_without_probabilities_clips_or_a_maker_there_is_less():
    assert mistakes.most_wrong(table().drop(columns="probability"), 0.5, load, draw) == ([], {})
    assert mistakes.most_wrong(table(), 0.5, None, draw) == ([], {})
    frames, maps = mistakes.most_wrong(table(), 0.5, load, None)
    assert len(frames) == 9 and maps == {}
