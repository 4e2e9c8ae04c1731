"""Which sources a run was trained on, from its manifest and the names in other data."""

import pandas as pd

from tfdetect import config, models  # noqa: F401  (registers the detectors)
from tfdetect.workflow import seen
from tfdetect.workflow.seen import TrainingSources

RUN = config.parse(["cnn"], "t")


def rows(*sources, split="train", groups=3):
    return pd.DataFrame([{"label": 1, "source": source, "group": f"{source}{k}", "split": split, "error": ""}
                         for source in sources for k in range(groups)])  # fmt: skip


def test_sources_of_training_and_validation_count_and_those_of_the_test_and_of_failures_do_not():
    table = pd.concat([rows("a"), rows("b", split="validation"), rows("c", split="test"), rows("d").assign(error="broken"),
                       rows("camera").assign(label=0)])  # fmt: skip
    training = seen.of_table(table, RUN, same_data=True)
    assert training.names == {"a", "b"} and not training.validation_only
    assert [training.has(name) for name in ("a", "b", "c", "camera")] == [True, True, False, False]
    assert seen.of_table(table, config.parse(["oc_ae"], "t"), True).validation_only
    assert seen.of_table(table.astype(str), RUN, True) == training, "also as read from a file"


def test_folders_of_single_videos_are_not_taken_for_generators():
    assert seen.of_table(rows("v1", "v2", groups=1), RUN, True).has("v3") is None


def test_general_names_mean_the_same_in_the_same_data_only():
    assert TrainingSources(frozenset({"fake"}), same_data=True).has("fake") is True
    other = TrainingSources(frozenset({"StyleGAN", "ProGAN"}), same_data=False)
    assert [other.has(name) for name in ("stylegan", "BigGAN", "Fake", "", "ai")] == [True, False, None, None, None]
    assert TrainingSources(frozenset({"fake", "StyleGAN"}), same_data=False).has("BigGAN") is None, "it may be among the fakes"
    assert TrainingSources(frozenset(), same_data=False).has("BigGAN") is None
