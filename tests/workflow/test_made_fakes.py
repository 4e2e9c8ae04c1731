"""--data.make_fakes: which files get fakes, what the user is told, and which settings are refused."""

from pathlib import Path

import numpy as np
import pytest
from in_process import map_here

from tfdetect.data import made_fakes as maker
from tfdetect.data import manifest, self_blended
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.errors import UserError
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.pandas_settings import pd
from tfdetect.settings import Data, Run, Train
from tfdetect.workflow import made_fakes, scoring, training_data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a cache of face crops; every picture has a face in its middle."""
    face = np.concatenate([[8, 8, 16, 16, 0.9], (6 + self_blended.TYPICAL_POINTS * 20).ravel()])
    monkeypatch.setattr(maker, "detect_largest", lambda frame, settings: face)
    monkeypatch.setattr(maker, "map_unordered", map_here)
    return Cache(tmp_path / "cache", ClipSpec(1, 32, faces=FaceSettings(Path("yunet.onnx"), "0123456789abcdef")))


def table_of(images, *kinds):
    """Return a manifest of (label, split), each with a file of its own."""
    files = [iter(sorted((images / name).iterdir())) for name in ("real", "fake")]
    rows = [{"path": str(next(files[label])), "label": label, "split": split, "source": "s"} for label, split in kinds]
    return manifest.validate(pd.DataFrame(rows), "t")


def settings(cache, count=1, augment=""):
    return Run(Cnn(), Data(faces="yunet", make_fakes=count, cache_dir=cache.root), Train(augment=augment))


def counts(table):
    return {(split, source): len(rows) for (split, source), rows in table[table["label"] == 1].groupby(["split", "source"])}


REALS = ((0, "train"), (0, "validation"), (0, "test"))
FAKES = ((1, "train"), (1, "validation"), (1, "test"))


@pytest.mark.parametrize(
    "kinds, count, augment, expected",
    [
        (REALS, 2, "", {("train", "self-blended"): 2, ("validation", "self-blended"): 2, ("test", "self-blended"): 2}),
        (REALS, 1, "flip|sbi", {("validation", "self-blended"): 1, ("test", "self-blended"): 1}),
        (REALS + FAKES, 1, "", {("train", "self-blended"): 1, ("validation", "self-blended"): 1, ("test", "s"): 1}),
        (REALS + FAKES, 0, "", {("train", "s"): 1, ("validation", "s"): 1, ("test", "s"): 1}),
    ],
)
def test_made_fakes_take_the_place_of_others_except_in_the_test(images, cache, capsys, kinds, count, augment, expected):
    run = settings(cache, count, augment)
    whole = made_fakes.add_made_fakes(table_of(images, *kinds), run, cache)
    assert counts(whole) == expected and (whole["label"] == 0).sum() == 3
    made = whole[whole["source"] == "self-blended"]
    assert made["path"].map(lambda path: Path(path).exists()).all()
    assert set(made["group"]) <= set(whole.loc[whole["label"] == 0, "group"])
    training_data.require_classes(whole, run)
    assert ("in every epoch" in capsys.readouterr().out) == bool(augment)
    assert whole.attrs.get("left_out", {}) == ({"fakes that made ones replace": 2} if count and kinds != REALS else {})


def test_made_fakes_join_others_in_pictures_that_are_not_cropped(images, cache, monkeypatch):
    asked, faces = [], cache.spec.faces
    monkeypatch.setattr("tfdetect.data.media.faces.model_path", lambda path, folder: asked.append(path))
    monkeypatch.setattr("tfdetect.data.media.faces.FaceSettings.from_model", lambda path: faces)
    run = Run(Cnn(), Data(make_fakes=1, keep_fakes=True, face_model=Path("y.onnx"), cache_dir=cache.root))
    whole = made_fakes.add_made_fakes(table_of(images, *REALS, *FAKES), run, Cache(cache.root, ClipSpec(1, 32)))
    assert asked == [Path("y.onnx")] and counts(whole) == {
        ("train", "s"): 1, ("validation", "s"): 1, ("test", "s"): 1, ("train", "self-blended"): 1,
        ("validation", "self-blended"): 1}  # fmt: skip


def test_without_a_face_the_user_is_told(images, cache, monkeypatch):
    monkeypatch.setattr(maker, "detect_largest", lambda frame, settings: None)
    with pytest.raises(UserError, match=r"No fake could be made of any of 3 real files: --data\.make_fakes needs photographs"):
        made_fakes.add_made_fakes(table_of(images, *REALS), settings(cache), cache)


def test_reals_alone_are_refused_with_a_hint(images, cache):
    with pytest.raises(UserError, match=r"none is fake\. .*--data\.faces yunet --data\.make_fakes 1 makes fakes"):
        training_data.require_classes(table_of(images, *REALS), settings(cache, 0, "sbi"))


def test_the_report_says_what_made_fakes_prove_and_looks_for_no_shortcut_in_them(images, cache):
    whole = made_fakes.add_made_fakes(table_of(images, *REALS), settings(cache), cache)
    (text,) = made_fakes.warning(whole)
    assert text.startswith("The test has 1 fake that this run made") and "--data.path DIR" in text
    assert made_fakes.warning(table_of(images, *REALS, *FAKES)) == ()
    assert not scoring.find_shortcuts(whole.assign(error="", frames=1), Data()).aucs


def test_blending_crops_needs_a_face_detector():
    with pytest.raises(UserError, match=r"blends face crops, but no faces are looked for: add --data\.faces yunet"):
        Run(Cnn(), Data(), Train(augment="flip|sbi(p=0.5)"))


def test_keeping_fakes_means_that_others_are_made():
    with pytest.raises(UserError, match=r"--data\.keep_fakes needs --data\.make_fakes"):
        Run(Cnn(), Data(keep_fakes=True))


def test_still_fakes_are_refused_for_clips_and_negative_numbers():
    with pytest.raises(UserError, match="makes still pictures, but cnn_lstm takes clips"):
        Run(CnnLstm(), Data(faces="yunet", make_fakes=1))
    with pytest.raises(UserError, match=r"--data\.make_fakes"):
        Data(make_fakes=-1)
