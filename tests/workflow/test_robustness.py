"""A robustness sweep: which verdicts flip, what an interrupted sweep repeats, grids and their curves."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from in_process import decode_here
from PIL import Image

from tfdetect import config
from tfdetect.artifact import Artifact
from tfdetect.data.input_pipeline import corrupted_files
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.errors import UserError
from tfdetect.evaluation import predictions
from tfdetect.evaluation.calibration import Calibration
from tfdetect.workflow import robustness, robustness_grids
from tfdetect.workflow.test_files import Evaluate, EvaluateData

pytestmark = pytest.mark.usefixtures("light_test")
DATA = config.parse(["cnn"], "t").data
LEVELS = (100, 156)  # mean brightness of the darkest real and the lightest fake picture


class Brightness:
    """Says "fake" of pictures whose mean is at least 128 levels, and of nothing else."""

    is_frame_detector, classes, threshold, batch, aggregate = True, (), 0.5, 5, "mean"
    calibration = Calibration(1.0, -128.0, 0.5)

    def __init__(self):
        self.scored = 0

    def model_frames(self, media):
        return media.frames

    def predict_clips(self, clips):
        assert clips.dtype == np.uint8 and clips.shape[1:] == (1, 16, 16, 3) and len(clips) <= self.batch
        self.scored += len(clips)
        score = clips.astype(np.float32).mean((1, 2, 3, 4))
        return score, self.calibration.probability(score)


class Clips(Brightness):
    """The same of whole clips."""

    is_frame_detector = False


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Table and cache of 16 pictures of grey noise whose mean rises in steps of 3.7 levels; the first eight are real."""
    folder, rng, rows = tmp_path_factory.mktemp("grey"), np.random.default_rng(0), []
    for number, level in enumerate(np.linspace(*LEVELS, 16)):
        noise = rng.normal(0, 8, (16, 16, 1)).repeat(3, 2)
        Image.fromarray((level + noise - noise.mean()).round().astype(np.uint8)).save(folder / f"{number}.png")
        rows.append((str(folder / f"{number}.png"), int(level > 128), f"group {number}", "drawn", "test"))
    cache = Cache(folder / "cache", ClipSpec(1, 16))
    table = pd.DataFrame(rows, columns=["path", "label", "group", "source", "split"])
    return decode.prepare(table, cache, runner=decode_here), cache


@pytest.fixture
def run(tmp_path):
    """An artifact, of which only the weights matter here."""
    artifact = Artifact(tmp_path / "run")
    artifact.folder.mkdir()
    artifact.model.write_bytes(b"weights")
    return artifact


def sweep(prepared, run, *words, detector=None, out="out"):
    table, cache = prepared
    target = Artifact(run.folder / out)
    return robustness.measure(words, target, run, detector or Brightness(), table, cache, DATA), target


def test_a_detector_of_brightness_flips_under_brightness_and_not_under_blur(prepared, run):
    found, target = sweep(prepared, run, "brightness(-10)", "brightness(10)", "blur(3)", "resize(2)", "brightness(0)")
    rows = found.table.set_index("corruption")
    assert list(rows.index) == ["none", "brightness(-10)", "brightness(10)", "blur(3)", "resize(2)", "brightness(0)"]
    assert (rows["auc"] == 1).all() and (rows["n"] == 16).all() and (rows["failed"] == 0).all()
    # The lightest real pictures have 126.1, 122.4 and 118.7, the darkest fakes 129.9, 133.6 and 137.3 levels.
    assert dict(rows["to_fake"]) == {"none": 0, "brightness(-10)": 0, "brightness(10)": 3, "blur(3)": 0, "resize(2)": 0,
                                     "brightness(0)": 0}  # fmt: skip
    assert rows.loc["brightness(-10)", ["to_real", "flipped", "accuracy"]].tolist() == [3, 3 / 16, 13 / 16]
    low, high = rows.loc["brightness(10)", "flipped_interval"]
    assert 0 <= low < 3 / 16 < high < 0.5
    assert rows.loc["blur(3)", "flipped_interval"] == [0, pytest.approx(1 - 0.025 ** (1 / 16))]
    flips = pd.read_csv(target.folder / "robustness_flips.csv")
    lighter = flips[flips["corruption"] == "brightness(10)"]
    assert [path.rsplit("/")[-1] for path in lighter["path"]] == ["5.png", "6.png", "7.png"] and len(flips) == 6
    assert set(lighter["verdict_before"]) == {"real"} and set(lighter["verdict"]) == {"fake"}
    assert (lighter["probability"] >= 0.5).all() and (lighter["probability_before"] < 0.5).all()
    written = pd.read_csv(target.folder / "robustness.csv")
    assert list(written["corruption"]) == list(rows.index) and written["flipped_high"].notna().all()
    headline = "most verdicts change after brightness(-10): 18.8 % of 16 files, 0 to fake and 3 to real"
    assert headline in robustness.describe(found, target)
    assert json.dumps(found.metrics) and found.metrics["robustness"]["blur(3)"]["strength"] == 3


def test_strength_zero_gives_the_scores_of_the_unchanged_files(prepared, run):
    _, target = sweep(prepared, run, "blur(0)", "resize(1)", "noise(0)", "crop(1)", detector=Clips())
    rows = [json.loads(line) for line in (target.folder / "robustness_scores.jsonl").read_text().splitlines()]
    by_text = {text: {sha: scores for _, sha, other, scores in rows if other == text} for _, _, text, _ in rows}
    assert len(by_text) == 5 and all(scores == by_text[""] for scores in by_text.values())
    table, cache = prepared
    assert by_text[""] == {sha: [float(cache.load(sha).mean(dtype=np.float64))] for sha in table["sha"]}


def test_an_interrupted_sweep_computes_only_what_is_missing(prepared, run, monkeypatch):
    made, make = [], corrupted_files.ClipMaker.__call__
    monkeypatch.setattr(corrupted_files.ClipMaker, "__call__", lambda self, file: made.append(file) or make(self, file))

    class Interrupted(Brightness):
        def predict_clips(self, clips):
            if self.scored >= 20:
                raise KeyboardInterrupt
            return super().predict_clips(clips)

    words = ("blur(1)", "jpeg(50)")
    with pytest.raises(KeyboardInterrupt):
        sweep(prepared, run, *words, detector=Interrupted())
    path = run.folder / "out" / "robustness_scores.jsonl"
    assert len(path.read_text().splitlines()) == 20 < 3 * 16
    with open(path, "a") as file:
        file.write('["cut off in the mid')
    made.clear()
    again, expected = Brightness(), sweep(prepared, run, *words, out="other")[0]
    made.clear()
    found, _ = sweep(prepared, run, *words, detector=again)
    assert again.scored == sum(len(file.texts) for file in made) == 3 * 16 - 20
    pd.testing.assert_frame_equal(found.table, expected.table)
    more = Brightness()
    sweep(prepared, run, *words, "webp(50)", detector=more)
    assert more.scored == 16, "only the new corruption"
    sweep(prepared, run, *words, "webp(50)", detector=more)
    assert more.scored == 16
    run.model.write_bytes(b"other weights")
    sweep(prepared, run, *words, detector=more)
    assert more.scored == 16 + 48, "scores of other weights do not count"


def test_files_without_a_clip_are_counted_and_left_out(prepared, run, monkeypatch):
    make = corrupted_files._Clips.make_one

    def fail(self, number, encodings, rest, copy):
        if self.file.path.endswith(("0.png", "9.png")) and rest:
            return corrupted_files.WorkerFailure("no face found")
        return make(self, number, encodings, rest, copy)

    monkeypatch.setattr(corrupted_files._Clips, "make_one", fail)
    found, _ = sweep(prepared, run, "blur(1)")
    failing = sum(path.endswith(("0.png", "9.png")) for path in prepared[0]["path"])
    assert found.table[["corruption", "n", "failed"]].to_numpy().tolist() == [["none", 16, 0], ["blur(1)", 16 - failing, failing]]


def test_the_files_themselves_are_needed(prepared, run):
    table, cache = prepared
    gone = table.assign(path=table["path"] + ".gone")
    with pytest.raises(UserError, match=r"16 of 16 files are gone"):
        sweep((gone, cache), run, "blur(1)")
    with pytest.raises(UserError, match=r"h264\(30\) can only be applied to videos"):
        sweep(prepared, run, "h264(30)")


@pytest.mark.parametrize("name", robustness_grids.GRIDS)
def test_every_grid_is_valid(name):
    texts = robustness_grids.parse([name])
    assert len(texts) == len(robustness_grids.GRIDS[name]) and robustness_grids.parse([name, *texts]) == texts


def test_bare_grids_depend_on_the_kind_of_file():
    images, videos, both = (robustness_grids.select((), *kinds) for kinds in ((True, False), (False, True), (True, True)))
    assert both == (*images, *videos) and not any(map(robustness_grids.encodes_video, images))
    assert all(map(robustness_grids.encodes_video, videos))
    assert robustness_grids.select(["aigcdetect", "h264(20)"], True, True) == ("jpeg(95)", "blur(1)", "resize(0.5)", "h264(20)")


@pytest.mark.parametrize("word, message", [
    ("univf", "Perhaps you meant the grid univfd"), ("jpeg(200)", "expected jpeg"), ("mixup(0.2)", "changes labels"),
    ("saved_models/cnn", "The grids are standard"), ("", "unchanged files are scored anyway"),
])  # fmt: skip
def test_a_mistake_in_a_grid_is_named(word, message):
    with pytest.raises(UserError, match=message):
        robustness_grids.parse([word])


def test_corruptions_make_up_curves():
    texts = ("jpeg(90)", "blur(1)", "jpeg(30)", "resize(0.5)|h264(23)", "resize(0.2)|h264(23)", "flip", "jpeg(30,50)",
             "blur(1)|jpeg(5)", "crop(0.5)|jpeg(70)", "crop(0.9)|jpeg(90)", "noise(1)|flip|noise(1)", "noise(2)|flip|noise(2)")
    assert robustness_grids.curves(texts) == {
        "jpeg(90)": ("jpeg(quality)", 90), "blur(1)": ("blur(sigma)", 1), "jpeg(30)": ("jpeg(quality)", 30),
        "resize(0.5)|h264(23)": ("resize(scale)|h264(23)", 0.5), "resize(0.2)|h264(23)": ("resize(scale)|h264(23)", 0.2),
        "flip": ("flip", None), "jpeg(30,50)": ("jpeg(30,50)", None), "blur(1)|jpeg(5)": ("blur(1)|jpeg(5)", None),
        "crop(0.5)|jpeg(70)": ("crop(0.5)|jpeg(70)", None), "crop(0.9)|jpeg(90)": ("crop(0.9)|jpeg(90)", None),
        "noise(1)|flip|noise(1)": ("noise(sigma)|flip|noise(sigma)", 1),
        "noise(2)|flip|noise(2)": ("noise(sigma)|flip|noise(sigma)", 2),
    }  # fmt: skip


def test_the_flag_takes_nothing_or_grids_and_one_run():
    def words(*flags):
        return config.parse_flags(Evaluate, ["RUN", *flags], "evaluate").robustness

    assert words() is None and words("--robustness") == words("--robustness", "--stress", "3") == ()
    assert words("--robustness", "univfd", "jpeg(70)|blur(1)") == ("univfd", "jpeg(70)|blur(1)")
    assert config.parse_keywords(Evaluate((Path("RUN"),)), {"robustness": "univfd"}, "evaluate").robustness == ("univfd",)
    for flags in ({"runs": (Path("A"), Path("B"))}, {"runs": (Path("A"),), "data": EvaluateData(corrupt="blur(1)")}):
        with pytest.raises(UserError, match="--robustness corrupts the files of a single run by itself"):
            Evaluate(**flags, robustness=())


def test_scores_of_frames_become_those_of_files_by_the_rule_of_the_run(tmp_path):
    scores = robustness.Scores(tmp_path / "scores.jsonl", "key")
    scores.add([("a", "", [0.0, 200.0, 130.0]), ("b", "", [100.0])])
    rows = pd.DataFrame([("b", "b.mp4", 0, "1", "", "test"), ("a", "a.mp4", 1, "2", "", "test")],
                        columns=["sha", "path", "label", "group", "source", "split"])  # fmt: skip
    detector = Brightness()
    for detector.aggregate, score in (("mean", 110), ("max", 200), ("median", 130)):
        table = robustness.with_probabilities(scores.table(rows, ""), detector)
        assert predictions.by_file(table).set_index("path")["score"].to_dict() == {"b.mp4": 100, "a.mp4": score}
    again = robustness.Scores(tmp_path / "scores.jsonl", "key")
    assert again.known == scores.known and robustness.Scores(tmp_path / "scores.jsonl", "other").known == {}
