"""Files are scored in batches: the scores do not depend on who shares the batch, and every answer is in its place."""

import itertools
import os
import subprocess
import sys
import threading
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
from crashing import CrashingSpec, sleep
from in_process import map_here
from light import in_process

from tfdetect import files, models
from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Fit, Media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.sample import Sample, write
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.serving import decode_ahead
from tfdetect.serving.decode_ahead import DecodeAhead
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor

SIZE, FRAMES = 32, 4
CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # measured: 2e-7; convolutions of other batch sizes add in another order


@pytest.fixture(scope="module", params=["frame", "clip"])
def predictor(request, tmp_path_factory):
    """An exported detector of frames, or of clips, with random weights, and the folder of its run."""
    keras.utils.set_random_seed(0)
    detector, frames = (Cnn(width=4), 1) if request.param == "frame" else (CnnLstm(), FRAMES)
    artifact = Artifact(tmp_path_factory.mktemp(request.param))
    spec = ClipSpec(FRAMES, SIZE, still=request.param == "clip")
    detector.build((frames, SIZE, SIZE, 3)).save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    export(models.load(artifact.model), CALIBRATION, detector, artifact.saved_model, spec)
    predictor = Predictor(artifact, spec, detector)
    predictor.folder = artifact.folder
    return predictor


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Images and videos, a short one among them, with files between them that cannot be read."""
    folder = tmp_path_factory.mktemp("mixed")
    with in_process():
        images = sorted(write(Sample("image", 5, size=SIZE), folder / "images").parent.glob("*/*.jpg"))
        videos = sorted(write(Sample("video", 3, size=SIZE, frames=8), folder / "videos").parent.glob("*/*.mp4"))
    (folder / "bad.jpg").write_bytes(b"nothing")
    mixed = [*images[:4], folder / "bad.jpg", videos[0], *images[4:7], *videos[1:], folder / "missing.mp4", *images[7:]]
    return list(map(str, mixed))


@pytest.fixture
def here(monkeypatch):
    """Decode in this process."""
    monkeypatch.setattr(decode_ahead, "map_unordered", map_here)


def scores(verdicts):
    return np.array([np.nan if verdict.score is None else verdict.score for verdict in verdicts])


def test_every_file_gets_its_score_whatever_its_batch(predictor, mixed, here, monkeypatch):
    alone = [predictor.to_verdict(path, predictor.spec.try_read((0, path))) for path in mixed]
    assert np.nanstd(scores(alone)) > 1e-3, "the files have different scores"
    for order in (np.arange(len(mixed)), np.random.default_rng(0).permutation(len(mixed))):
        for batch in (1, 3, 32):
            monkeypatch.setattr(predictor, "batch", batch)
            found = list(predictor.predict_files([mixed[number] for number in order]))
            assert [verdict.path for verdict in found] == [mixed[number] for number in order]
            np.testing.assert_allclose(scores(found), scores([alone[number] for number in order]), **TOLERANCE)
            for verdict, number in zip(found, order, strict=True):
                rest = {"score": None, "probability": None}
                assert replace(verdict, **rest) == replace(alone[number], **rest)


def test_files_share_calls_and_no_call_exceeds_the_batch(predictor, mixed, here, monkeypatch):
    sizes, outputs = [], predictor._outputs
    monkeypatch.setattr(predictor, "_outputs", lambda clips: sizes.append(len(clips)) or outputs(clips))
    monkeypatch.setattr(predictor, "batch", 8)
    monkeypatch.setattr("tfdetect.serving.predictor.MAX_WAIT", 1000.0)
    list(predictor.predict_files(mixed))
    clips = 10 + (6 * FRAMES if predictor.is_frame_detector else 6)
    assert sum(sizes) == clips and max(sizes) <= 8 and len(sizes) <= clips // 8 + 3


def test_a_file_with_more_frames_than_a_batch_is_scored_in_parts(predictor, monkeypatch, rng):
    if not predictor.is_frame_detector:
        pytest.skip("a clip is scored as a whole")
    media = Media(rng.integers(0, 256, (10, SIZE, SIZE, 3), np.uint8), (), 10, SIZE, SIZE, "")
    expected = predictor.predict_clips(media.frames[None])[0][0]
    monkeypatch.setattr(predictor, "batch", 4)
    assert predictor.to_verdict("a", media).score == pytest.approx(expected, rel=1e-5)


def test_a_batch_that_does_not_fit_into_memory_is_halved(predictor, mixed, here, monkeypatch):
    outputs, refused = predictor._outputs, []

    def limited(clips):
        if len(clips) > 2:
            refused.append(len(clips))
            raise MemoryError
        return outputs(clips)

    expected = scores(predictor.predict_files(mixed))
    monkeypatch.setattr(predictor, "batch", 8)
    monkeypatch.setattr(predictor, "_outputs", limited)
    monkeypatch.setattr("tfdetect.serving.predictor.MAX_WAIT", 1000.0)
    np.testing.assert_allclose(scores(predictor.predict_files(mixed)), expected, **TOLERANCE)
    assert refused == [8, 4] and predictor.batch == 2
    monkeypatch.setattr(predictor, "_outputs", lambda clips: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        list(predictor.predict_files(mixed))


def test_an_answer_does_not_wait_for_a_batch_that_never_fills(predictor, mixed, monkeypatch):
    """The second file is decoded only after the first has its verdict."""
    answered = threading.Event()

    def one_by_one(items, work, *_):
        for number, item in enumerate(items):
            if number:
                assert answered.wait(60), "the first answer waits for the second file"
            yield item, work(item)

    monkeypatch.setattr(decode_ahead, "map_unordered", one_by_one)
    verdicts = predictor.predict_files(mixed[:2])
    assert next(verdicts).path == mixed[0]
    answered.set()
    assert next(verdicts).path == mixed[1]


def test_a_file_of_a_rare_shape_does_not_hold_up_all_others(predictor, here, monkeypatch, tmp_path, rng):
    """While images of another shape keep coming; no answer waits for the end."""
    monkeypatch.setattr(predictor, "batch", 2)
    monkeypatch.setattr("tfdetect.serving.predictor.MAX_BEHIND", 3)
    monkeypatch.setattr("tfdetect.serving.predictor.MAX_WAIT", 1000.0)
    shapes = [SIZE, *[SIZE // 2] * 99]
    media = [Media(rng.integers(0, 256, (1, size, size, 3), np.uint8), (0,), 1, size, size, "") for size in shapes]
    decoded = DecodeAhead(enumerate(map(str, range(100))), lambda item: media[item[0]], None, None, 100)
    groups = [[number for number, _, _ in group] for group in predictor._gather(decoded)]
    decoded.close()
    assert sorted(itertools.chain(*groups)) == list(range(100)) and 3 <= groups.index([0]) <= 4


def test_a_decoder_that_crashes_only_fails_its_file(predictor, mixed, monkeypatch):
    monkeypatch.setattr(predictor, "spec", CrashingSpec(FRAMES, SIZE, still=predictor.spec.still))
    paths = [mixed[0], "crash.jpg", *mixed[1:3]]
    found = list(predictor.predict_files(paths, workers=2))
    assert [verdict.path for verdict in found] == paths
    assert [verdict.error for verdict in found] == [None, "the decoder crashed", None, None]


def test_an_error_of_the_reader_itself_is_raised(here):
    def fail(item):
        raise OSError("the disk is gone")

    decoded = DecodeAhead([1, 2], fail, None, None, 1)
    with pytest.raises(OSError, match="the disk is gone"):
        decoded.get()
    decoded.close()


def test_closing_ends_the_thread_and_the_processes_at_once():
    decoded = DecodeAhead([0, 1], sleep, 1, None, 1)
    with pytest.raises(TimeoutError):
        decoded.get(0.01)
    decoded.close()
    assert not decoded._thread.is_alive()


def test_failures_do_not_reach_the_network(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "_outputs", None)
    assert predictor.to_verdict("a", WorkerFailure("broken")).error == "broken"


@pytest.mark.parametrize("predictor", ["clip"], indirect=True)
def test_serving_a_saved_model_imports_neither_keras_nor_pandas(predictor, tmp_path):
    """In a process of its own; Keras can be imported afterwards, and reads the model."""
    image = tmp_path / "a.png"
    cv2.imwrite(str(image), np.zeros((SIZE, SIZE, 3), np.uint8))
    folder = predictor.folder
    code = f"""
import sys
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.serving.predictor import Predictor
predictor = Predictor(Artifact(__import__("pathlib").Path({str(folder)!r})), ClipSpec({FRAMES}, {SIZE}, still=True), CnnLstm())
assert "tensorflow" not in sys.modules, "TensorFlow is imported before the model is needed"
[verdict] = predictor.predict_files([{str(image)!r}], workers=1)
heavy = {{"keras", "pandas", "sklearn", "matplotlib"}} & set(sys.modules)
assert verdict.error is None and not heavy, (verdict, heavy)
import keras, tfdetect
assert keras.models.load_model({str(folder)!r} + "/model.keras").count_params()
print(verdict.score)
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(predictor.to_verdict("", predictor.spec.try_read((0, str(image)))).score, abs=1e-5)


def test_crops_of_images_of_any_shape_share_a_batch(tmp_path, predictor, here, monkeypatch, rng):
    if not predictor.is_frame_detector:
        pytest.skip("only single frames have several crops")
    monkeypatch.setattr(predictor, "spec", ClipSpec(1, SIZE, fit=Fit("crop", 5)))
    paths = []
    for number, shape in enumerate([(40, 70), (SIZE, SIZE), (100, 33), (8, 8)]):
        paths.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(paths[-1], rng.integers(0, 256, (*shape, 3), np.uint8))
    alone = [predictor.to_verdict(path, predictor.spec.try_read((0, path))) for path in paths]
    together = list(predictor.predict_files(paths))
    frames = [verdict.frames for verdict in alone]
    assert [verdict.frames for verdict in together] == frames and len(set(frames)) > 1
    np.testing.assert_allclose(scores(together), scores(alone), **TOLERANCE)
