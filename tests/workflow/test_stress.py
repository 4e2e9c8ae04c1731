"""What a detector learnt: AUC of altered and of equalised test files, the warning, and the neighbours of its mistakes."""

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from in_process import decode_here

from tfdetect import cli, config
from tfdetect.data.audit.shortcuts import Shortcuts, find_warnings
from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.media.encode import encode_jpeg
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.detector import FeatureTable, ReportContext
from tfdetect.evaluation.calibration import Calibration
from tfdetect.plots import standard
from tfdetect.workflow import neighbours, scoring, stress

pytestmark = pytest.mark.usefixtures("light_test")
RUN = config.parse(["cnn"], "t")
FORMAT = Shortcuts({"container": 1.0, "all": 1.0}, find_warnings({"container": 1.0, "all": 1.0}, [0, 1] * 20, list(range(40))))


class Detail:
    """Scores how much neighbouring pixels differ: evidence that a compression removes."""

    is_frame_detector, classes, calibration, aggregate = True, (), Calibration(1.0, -5.0, 0.5), "mean"
    familiarity = None

    def outputs(self, clips):
        return {"score": np.abs(np.diff(clips.astype(np.float32), axis=3)).mean((1, 2, 3, 4))}

    def predict_clips(self, clips):
        score = self.outputs(clips)["score"]
        return score, self.calibration.probability(score)


class NoFeatures:
    """A model without a layer `features`."""

    layers = ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Table and cache of 72 pictures of the same kind of noise; the reals are JPEG, the fakes PNG."""
    folder, rng, rows = tmp_path_factory.mktemp("formats"), np.random.default_rng(0), []
    for number in range(72):
        label, pixels = number % 2, np.clip(rng.normal(128, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{number}.{('jpg', 'png')[label]}"
        path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes() if label else encode_jpeg(pixels, 60))
        rows.append((str(path), label, f"group {number}", ("camera", "gan")[label], "train" if number < 24 else "test"))
    table = pd.DataFrame(rows, columns=["path", "label", "group", "source", "split"])
    cache = Cache(folder / "cache", ClipSpec(1, 32))
    return decode.prepare(table, cache, runner=decode_here), cache


@pytest.fixture(scope="module")
def context(prepared):
    table, cache = prepared
    scored = scoring.score(Detail(), table[table["split"] == "test"], cache)
    return ReportContext(NoFeatures, scored, 0.5, table, scoring.clip_loader(table, cache))


def summary(auc, low, high):
    return {"n": 40, "n_real": 20, "n_fake": 20, "auc": auc, "auc_interval": [low, high]}


def test_a_detector_of_the_file_format_is_found_out(prepared, context):
    found = stress.plan_study(40, RUN, RUN.data, context, Detail(), prepared[1])(FORMAT)
    assert list(found.stress) == list(standard.STRESS_NAMES) and {row["n"] for row in found.stress.values()} == {40}
    assert found.stress["none"]["auc"] == 1 and found.stress["jpeg(90)"]["auc"] > 0.95 > found.stress["jpeg(50)"]["auc"]
    assert (found.equalised["n"], found.equalised["before"]["auc"], found.tested) == (40, 1.0, 48)
    low, high = found.equalised["auc_interval"]
    assert low < 0.5 < high and found.equalised["plan"]["quality"] == 60
    assert "told from container (AUC 1.00). With one crop and encoding for both classes, 40 test files" in found.equalised_note
    assert "not clearly above the 1.000 that file size, format and colour alone reach; before, AUC 1.000" in found.warnings[0]
    assert found.conclusion.endswith("not clearly above the 1.000 that file size, format and colour alone reach.")
    assert stress.conclude(found.stress, Shortcuts({}, [])).endswith("still clearly above chance.")
    assert stress.conclude({}, FORMAT) == ""
    assert found.metrics == {"stress": found.stress, "equalised": found.equalised}


def test_corrupted_clips_are_the_same_each_time_and_strength_zero_changes_nothing(prepared):
    table, cache = prepared
    plain, zero, *noisy = (scoring.score(Detail(), table, cache, chain and corruptions.parse(chain))["score"].to_numpy()
                           for chain in ("", "blur(0)", "noise(9)", "noise(9)"))  # fmt: skip
    assert np.array_equal(plain, zero) and np.array_equal(*noisy) and (noisy[0] > plain).all()


def test_verdicts_that_an_alteration_changes_are_counted(context):
    before = context.predictions.assign(score=[*range(48)], probability=[*np.linspace(0, 1, 48)])
    after = before.assign(probability=before["probability"].where(before.index >= 12, 1 - before["probability"]))
    found = stress.summarise_altered(before, after, Detail())
    assert found["flipped"] == 12 / 48 and found["flipped_interval"][0] < 0.25 < found["flipped_interval"][1]
    assert found["became_inconclusive"] is None and found["auc"] == stress.summarise(after)["auc"]


def test_zero_leaves_it_out_and_light_tests_do_so_by_default(prepared, context):
    assert stress.plan_study(0, RUN, RUN.data, context, Detail(), prepared[1]) is None
    assert stress.plan_study(None, RUN, RUN.data, context, Detail(), prepared[1]) is None


def test_detectors_on_stored_features_get_fewer_files(prepared, context, monkeypatch):
    def count(name, frames=1):
        table = dataclasses.replace(context, files=context.files.assign(frames=frames))
        return stress.plan_study(None, config.parse([name], "t"), RUN.data, table, Detail(), prepared[1]).args[0]

    monkeypatch.setattr(stress, "FILES", 400)
    assert (count("cnn"), count("cnn", 16), count("clip"), count("clip", 4), count("clip", 16)) == (400, 400, 100, 25, 20)


@pytest.mark.parametrize("shortcuts, expected", [
    (Shortcuts({}, []), "Shortcuts were not measured"),
    (Shortcuts({"all": 0.55}, []), "nothing to equalise"),
    (Shortcuts({"border": 0.9}, find_warnings({"border": 0.9}, [0, 1] * 20, list(range(40)))), "the label (border: AUC 0.90)"),
])  # fmt: skip
def test_nothing_is_equalised_without_a_shortcut_of_the_format(prepared, context, shortcuts, expected):
    table, cache = prepared
    found, note = stress.equalised_auc(Detail(), table, context.predictions, cache, RUN.data, shortcuts)
    assert found == {} and expected in note


def test_files_that_cannot_be_equalised_give_a_reason(prepared, context):
    table, cache = prepared
    gone = table.assign(path=table["path"] + ".gone")
    found, note = stress.equalised_auc(Detail(), gone, context.predictions, cache, RUN.data, FORMAT)
    assert found == {} and "could not be equalised: None of the 72 files can be used" in note


def test_the_warning_needs_a_fall_to_the_shortcuts():
    def warned(before, after, shortcuts=None, run=RUN):
        return stress.warnings({"none": before, "jpeg(70)": after}, shortcuts or Shortcuts({"all": 0.6}, []), run)

    good, fallen = summary(0.9, 0.85, 0.95), summary(0.62, 0.55, 0.7)
    assert "above the 0.600 that" in warned(good, fallen)[0] and "--train.augment" in warned(good, fallen)[0]
    assert "above chance" in warned(good, summary(0.52, 0.45, 0.6), Shortcuts({}, []))[0]
    assert warned(good, summary(0.8, 0.75, 0.85)) == () and warned(good, fallen, Shortcuts({"all": 0.5}, [])) == ()
    weak = summary(0.64, 0.55, 0.7)
    assert warned(weak, fallen) == (), "it is weak, but compression changes nothing"
    assert warned(weak, fallen, FORMAT), "on files with a shortcut that it is not above"
    assert warned(summary(0.55, 0.45, 0.65), fallen, FORMAT) == (), "no better than chance anyway"
    assert warned({"auc": None, "auc_interval": None}, fallen) == () and stress.warnings({}, FORMAT, RUN) == ()
    augmented = config.parse(["cnn", "--train.augment", "jpeg(30,100)"], "t")
    assert "--train.augment" not in warned(good, fallen, run=augmented)[0]
    assert "--detector.views" in warned(good, fallen, run=config.parse(["clip"], "t"))[0]


def test_a_sample_has_both_classes_and_whole_groups_and_no_group_fills_it():
    rows = [(f"{name}{i}", label, name) for name, label, size in (("big", 0, 500), *((f"r{k}", 0, 2) for k in range(50)),
                                                                 *((f"f{k}", 1, 4) for k in range(9))) for i in range(size)]
    table = pd.DataFrame(rows, columns=["path", "label", "group"])
    sample = stress.sample_files(table, 60)
    sizes = sample.groupby(["label", "group"]).size()
    assert sizes[0].sum() in range(27, 31) and sizes[1].sum() in range(26, 31) and sizes.max() <= 4
    assert sample.equals(stress.sample_files(table, 60))
    assert len(stress.sample_files(table[table["group"] != "big"], 10**4)) == 136


def test_neighbours_come_from_stored_features_or_thumbnails(prepared, context):
    table, cache = prepared
    wrong = context.predictions["path"].iloc[[0, 1]]
    scored = context.predictions.assign(probability=context.predictions["label"].astype(float), log_odds=0.0)
    scored.loc[scored["path"].isin(wrong), "probability"] = [0.9, 0.2]
    vectors = np.eye(len(table), dtype=np.float32)
    train = table[table["split"] == "train"].reset_index(drop=True)
    vectors[24, [3, 5, 8]], vectors[25, [1, 2, 4]] = (9, 8, 7), (9, 8, 7)  # rows of the first two test files
    stored = FeatureTable(vectors, table["label"].to_numpy(), paths=list(table["path"]))
    mistaken = ReportContext(context.load_model, scored, 0.5, table, context.load_clip, features=stored)
    first, second = neighbours.most_wrong(mistaken, cache, True, train)[0]
    assert [first.test.path, second.test.path] == list(wrong) and (first.probability, second.probability) == (0.9, 0.2)
    assert [each.path for each in first.neighbours] == list(table["path"].iloc[[3, 5, 8]])
    assert [each.path for each in second.neighbours] == list(table["path"].iloc[[1, 2, 4]])
    plain = ReportContext(NoFeatures, scored, 0.5, table, context.load_clip)
    mistakes, note = neighbours.most_wrong(plain, cache, True, train)
    assert len(mistakes[0].neighbours) == 3 and "24 training files, by the pixels of a thumbnail" in note
    right = ReportContext(NoFeatures, scored[scored["probability"].isin([0, 1])], 0.5, table, context.load_clip)
    assert neighbours.most_wrong(right, cache, True, train) == ([], "No test file is misjudged.")


@pytest.mark.parametrize("argv, message", [
    (["train", "cnn", "--stress", "-1"], "--stress must be at least 0"),
    (["evaluate", "a", "--stress", "-1"], "--stress must be at least 0"),
    (["evaluate", "a", "b", "--stress", "9"], "one run"),
    (["evaluate", "a", "--stress", "9", "--data.corrupt", "jpeg(80)"], "without --data.corrupt"),
])  # fmt: skip
def test_impossible_flags_are_refused(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(cli.main(argv))
    assert stop.value.code == 2 and message in " ".join(capsys.readouterr().err.replace("│", " ").split())
