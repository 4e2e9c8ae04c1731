"""The corruption `sbi` with a face detector: which clips it blends, and how often it looks for a face."""

from pathlib import Path

import numpy as np
import pytest

from tfdetect.data import self_blended
from tfdetect.data.input_pipeline import face_blends
from tfdetect.data.input_pipeline.corruptions import parse
from tfdetect.data.media.faces import FaceSettings

FACES = FaceSettings(Path("yunet.onnx"), "0123456789abcdef")


@pytest.fixture
def searched(monkeypatch):
    """Return the frames in which a face was looked for; it is in a corner, or nowhere if the first pixel is black."""
    frames = []

    def detect_largest(frame, faces):
        frames.append(frame)
        points = self_blended.TYPICAL_POINTS * 30
        return np.concatenate([[0, 0, 30, 30, 0.9], points.ravel()]) if frame[0, 0].any() else None

    monkeypatch.setattr(face_blends, "detect_largest", detect_largest)
    face_blends.self_blending.cache_clear()
    yield frames
    face_blends.self_blending.cache_clear()


def test_landmarks_are_searched_once_per_frame_and_decide_the_place(rng, searched):
    clips = rng.integers(60, 200, (2, 1, 60, 60, 3), np.uint8)
    clips[1, 0, 0, 0] = 0
    changes = []
    for number in range(12):
        chain = parse("sbi(p=1)", FACES)
        fakes, labels = chain(clips, np.zeros((2, 1), np.float32), (0, number))
        assert (labels.numpy() == 1).all()
        changes.append(np.abs(fakes.numpy().astype(int) - clips)[:, 0].max(axis=-1))
    assert len(searched) == 2, "in each frame once, over all batches and chains"
    mean = np.mean(changes, axis=0)
    assert mean[0, 10:25, 8:22].mean() > mean[0, 35:, 35:].mean() + 2, "the face is in the corner"
    assert mean[1, 25:45, 22:38].mean() > mean[1, :8].mean() + 2, "no face found: it is assumed in the middle"


def test_fakes_stay_and_reals_that_stay_real_are_recoloured_as_often_as_fakes(rng):
    clips = np.repeat(rng.integers(60, 200, (1, 1, 24, 24, 3), np.uint8), 160, axis=0)
    given = np.repeat(np.float32([[0], [1]]), [120, 40], axis=0)
    after, labels = (part.numpy() for part in parse("sbi(p=0.5)")(clips, given, (5, 6)))
    changed = (after != clips).any(axis=(1, 2, 3, 4))
    assert (labels[120:] == 1).all() and not changed[120:].any()
    real = labels[:120, 0] == 0
    assert 40 < real.sum() < 80 and changed[:120][~real].all() and 0.3 < changed[:120][real].mean() < 0.7


def test_frames_of_a_clip_share_the_draws(rng):
    frame = rng.integers(60, 200, (24, 24, 3), np.uint8)
    after = parse("sbi(p=1)")(np.stack([[frame, frame]] * 3), np.zeros((3, 1), np.float32), (1, 2))[0].numpy()
    assert (after[:, 0] == after[:, 1]).all() and len({clip.tobytes() for clip in after}) == 3
