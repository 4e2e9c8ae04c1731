"""--data.faces all: a clip and a score for each face, from the cache to the verdict."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from tfdetect import cli, config
from tfdetect.artifact import Artifact
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.media import faces
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.prepare import beam, decode, shards
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.errors import UserError
from tfdetect.evaluation import predictions
from tfdetect.workflow import robustness, scoring

pytestmark = pytest.mark.usefixtures("light")
SIZE = 32
MARK = 255  # blue of the pixels that frame a face


def find_marks(frame, settings):
    """Find a face in each square whose upper left pixel is blue; its side is the pixel's red."""
    found = np.argwhere((frame[..., 2] == MARK) & (frame[..., 1] == 0))
    return np.array([[x, y, frame[y, x, 0], frame[y, x, 0], 0.9] for y, x in found], float).reshape(-1, 5)


@pytest.fixture(scope="module", autouse=True)
def marked_faces():
    """Find faces by their mark; no model file is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "detect", find_marks)
        yield


def draw(path: Path, rng: np.random.Generator, *others: tuple[int, int, int]) -> str:
    """Write a picture of faces, (left, top, side) each."""
    picture = rng.integers(100, 200, (96, 160, 3), np.uint8)
    for left, top, side in others:
        picture[top, left] = (side, 0, MARK)
    cv2.imwrite(str(path), picture[..., ::-1])
    return str(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folder of 20 real and 20 fake pictures with one, two or three faces, one of them with none; and a face model."""
    root, rng = tmp_path_factory.mktemp("marked"), np.random.default_rng(0)
    places = [(8, 8, 60), (90, 20, 40), (100, 64, 26)]
    for name in ("real", "fake"):
        (root / "set" / name).mkdir(parents=True)
        for number in range(20):
            draw(root / "set" / name / f"{number}-{name}.png", rng, *places[: number % 3 + 1])
    draw(root / "set" / "real" / "none.png", rng)
    (root / "yunet.onnx").write_bytes(b"a model")
    return root


def cache_at(folder, pictures, kind="npy", frames=1, still=False):
    settings = FaceSettings.from_model(pictures / "yunet.onnx", faces.ALL_FACES)
    return Cache(folder, ClipSpec(frames, SIZE, still=still, faces=settings), kind)


@pytest.mark.parametrize("kind", ["npy", "tfrecord"])
def test_the_cache_holds_a_clip_of_each_face(tmp_path, pictures, kind):
    cache = cache_at(tmp_path, pictures, kind)
    table = pd.DataFrame({"path": [str(pictures / "set/real" / name) for name in ("2-real.png", "0-real.png", "none.png")]})
    here = {"runner": lambda paths, cache, workers, seconds: ((path, cache.decode_file(path)) for path in paths)}
    found = decode.prepare(table.assign(label=0), cache, **here)
    assert [len(json.loads(text)) if text else 0 for text in found["faces"]] == [3, 1, 0]
    assert found["frames"].tolist() == [1, 1, 0] and "no face found" in found["error"][2]
    rows = dataset.expand_frames(decode.usable_rows(found), True)
    assert rows["face"].tolist() == [0, 1, 2, 0] and rows["box"].tolist()[:2] == ["8,8,60,60", "90,20,40,40"]
    alone = replace(cache.spec, faces=replace(cache.spec.faces, most=1))
    np.testing.assert_array_equal(cache.load(found["sha"][0]), alone.read(table["path"][0]).frames)
    expected = np.concatenate([cache.spec.read(path).frames for path in table["path"][:2]])[:, None]
    for clips in ([clips for clips, _ in dataset.evaluation_batches(rows.drop(columns=["face", "frame"]), cache, True, 3)],
                  [clips for _, clips in scoring.batches(rows, cache, True)]):  # fmt: skip
        np.testing.assert_array_equal(np.concatenate(clips), expected)
    load = scoring.clip_loader(found, cache)
    np.testing.assert_array_equal(load(table["path"][0], 2), expected[2])
    assert decode.prepare(table.assign(label=0), cache).equals(found), "nothing is decoded again"
    assert decode.size_on_disk(found, cache) >= 4 * SIZE * SIZE * 3
    for path in cache.folder.glob(f"*.{kind}"):
        path.write_bytes(path.read_bytes()[: shards.HEADER + SIZE * SIZE * 3])  # only the first clip is left
    assert decode.prepare(table.assign(label=0), cache, **here)["faces"].equals(found["faces"])
    np.testing.assert_array_equal(scoring.clip_loader(found, cache)(table["path"][0], 2), expected[2])


def test_training_sees_the_largest_face_of_each_file(pictures, tmp_path):
    cache, folder = cache_at(tmp_path, pictures), pictures / "set" / "fake"
    table = pd.DataFrame({"path": sorted(map(str, folder.iterdir()))[:6], "split": ["train", "test"] * 3})
    found = decode.prepare(table, cache)
    kept = decode.main_faces(found, "train")
    assert kept.loc[kept["split"] == "test", "faces"].equals(found.loc[found["split"] == "test", "faces"])
    assert all(len(json.loads(text)) == 1 for text in kept.loc[kept["split"] == "train", "faces"])


def test_clips_of_beam_hold_all_faces(pictures, tmp_path):
    cache, path = cache_at(tmp_path / "cache", pictures), str(pictures / "set/real/2-real.png")
    beam._Decoding(tmp_path, cache, 1, None).decode_batch([[json.dumps([path, 1, 2, False])]])
    [(_, row)] = beam._read_rows(tmp_path)
    found = decode.prepare(pd.DataFrame({"path": [path]}), cache, runner=lambda *args: iter([(path, row.load())]))
    assert [face[2] for face in json.loads(found["faces"][0])] == [60, 40, 26]
    rows = dataset.expand_frames(found, True)
    clips = np.concatenate([clips for _, clips in scoring.batches(rows, cache, True)])[:, 0]
    np.testing.assert_array_equal(clips, cache.spec.read(path).frames)


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    where = ["--data.path", str(pictures / "set"), "--data.cache_dir", str(folder / "cache"), "--out", str(folder / "runs")]
    face = ["--data.faces", "all", "--data.face_model", str(pictures / "yunet.onnx")]
    flags = ["--data.size", str(SIZE), "--train.epochs", "1", "--train.batch", "8", "--detector.width", "4", "--stress", "0"]
    assert cli.main(["train", "cnn", *where, *face, *flags]) == 0
    return Artifact(folder / "runs" / "cnn")


def test_predictions_have_a_row_for_each_face_and_figures_one_for_each_file(run):
    table, metrics = predictions.read(run.predictions), json.loads(run.metrics.read_text())
    counts = table.groupby("path").size()
    assert all(count == int(Path(path).name.partition("-")[0]) % 3 + 1 for path, count in counts.items())
    assert counts.max() > 1 and set(table["box"]) <= {"8,8,60,60", "90,20,40,40", "100,64,26,26"}
    test = predictions.by_file(table[table["split"] == "test"])
    assert metrics["test"]["n_real"] + metrics["test"]["n_fake"] == len(test)
    highest = table.groupby("path")["score"].max()
    np.testing.assert_allclose(test["score"], highest[test["path"]])
    assert "The score of a file is the maximum of its faces" in run.report.read_text()
    kept = pd.read_csv(run.manifest, keep_default_na=False).set_index("path")
    assert kept.loc[kept["split"] == "train", "faces"].map(lambda text: len(json.loads(text)) if text else 1).max() == 1


def test_predict_gives_a_score_for_each_face_as_evaluate_does(run, capsys, tmp_path):
    table = predictions.read(run.predictions)
    path, rows = next((path, rows) for path, rows in table.groupby("path") if len(rows) > 1)
    capsys.readouterr()
    assert cli.main(["predict", str(run.folder), path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose([face["score"] for face in found["faces"]], rows["score"], atol=1e-5)
    assert found["score"] == max(face["score"] for face in found["faces"]) and found["frames"] == len(rows)
    assert [",".join(map(str, face["box"])) for face in found["faces"]] == rows["box"].tolist()
    assert cli.main(["predict", str(run.folder), path]) == 0
    printed = capsys.readouterr().out
    assert "  face 1 " in printed and "40 x 40 pixels at 90, 20" in printed and "the maximum of its faces'" in printed
    for name in ("v.csv", "v.parquet", "v.jsonl"):
        assert cli.main(["predict", str(run.folder), path, "--out", str(tmp_path / name)]) == 0
    for written in (pd.read_csv(tmp_path / "v.csv"), pd.read_parquet(tmp_path / "v.parquet"),
                    pd.read_json(tmp_path / "v.jsonl", lines=True)):  # fmt: skip
        assert [face["score"] for face in json.loads(written["faces"][0])] == pytest.approx(rows["score"].tolist(), abs=1e-5)


def test_evaluate_combines_faces_by_the_rule_that_is_given(run):
    assert cli.main(["evaluate", str(run.folder), "--evaluate.aggregate", "mean,mean"]) == 0
    table = predictions.read(next(run.folder.glob("evaluations/own_test-mean*mean/predictions.csv")))
    files = predictions.by_file(table)
    np.testing.assert_allclose(files["score"], table.groupby("path")["score"].mean()[files["path"]])


def test_only_files_with_several_faces_have_a_rule_for_them():
    with pytest.raises(UserError, match=r"which takes --data\.faces all, not yunet; give mean"), config.parser_errors():
        config.parse(["cnn", "--data.faces", "yunet", "--evaluate.aggregate", "mean,mean"], "train")
    assert config.parse(["cnn", "--data.faces", "all", "--evaluate.aggregate", "max,top:2"], "train").data.faces == "all"
    for wrong in ("mean,", "mean,mean,mean", "mean,last"):
        with pytest.raises(UserError, match=r"must be mean, median, max or top:K .*FRAMES,FACES"), config.parser_errors():
            config.parse(["cnn", "--data.faces", "all", "--evaluate.aggregate", wrong], "train")


@pytest.mark.parametrize("single", [True, False])
def test_robustness_keeps_the_scores_of_faces_apart(single):
    class Levels:
        is_frame_detector, batch = single, 2

        def predict_clips(self, clips):
            return (clips.mean((1, 2, 3, 4)),)

    frames = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    batch = [robustness.Corrupted("aa", "x", frames, 3), robustness.Corrupted("bb", "x", frames[:2], 1)]
    scored = robustness.score_batch(batch, Levels())
    of_clips = [[[0.5], [2.5], [4.5]], [[0.5]]]
    assert [scores for _, _, scores in scored] == ([[[0, 1], [2, 3], [4, 5]], [[0, 1]]] if single else of_clips)
    scores = robustness.Scores(Path("none"), "key")
    scores.known["x"].update({sha: found for sha, _, found in scored})
    rows = pd.DataFrame({"path": ["a", "b"], "label": [1, 0], "group": ["a", "b"], "source": "", "split": "test",
                         "sha": ["aa", "bb"]})  # fmt: skip
    table = scores.table(rows, "x")
    assert table["face"].tolist() == ([0, 0, 1, 1, 2, 2, 0, 0] if single else [0, 1, 2, 0])
    np.testing.assert_allclose(predictions.file_scores(table)["score"], [4.5, 0.5])
