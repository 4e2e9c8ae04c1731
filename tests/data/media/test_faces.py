"""Faces are cropped from the native frame, tracked by overlap and never invented."""

import hashlib
import itertools
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tfdetect.data.media import faces
from tfdetect.data.media.faces import FaceSettings, FaceTracker
from tfdetect.data.media.frames import Media, resize
from tfdetect.data.media.read import read_media
from tfdetect.data.media.sniff import MediaError

SETTINGS = FaceSettings(Path("yunet.onnx"), "0123456789abcdef")
EVERY = FaceSettings(Path("yunet.onnx"), "0123456789abcdef", most=faces.ALL_FACES)


def scene(*marks: tuple[int, int, int], height: int = 120, width: int = 200) -> np.ndarray:
    """Return a frame in which red is the column and green the row; blue is 0 except in 9 x 9 (x, y, value) marks."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0], frame[..., 1] = np.arange(width), np.arange(height)[:, None]
    for x, y, value in marks:
        frame[y - 4 : y + 5, x - 4 : x + 5, 2] = value
    return frame


def clip_of(count: int, indices: tuple[int, ...] | None = None, note: str = "") -> Media:
    indices = tuple(range(count)) if indices is None else indices
    return Media(np.zeros((len(indices), 20, 20, 3), np.uint8), indices, count, 200, 120, note)


@pytest.fixture
def follow(monkeypatch):
    """Return follow(boxes per frame, media, ...), which returns the clip; a box is (left, top, width, height, score)."""

    def run(boxes, media=None, size=20, settings=SETTINGS):
        tracker, current = FaceTracker(settings, size), {}
        monkeypatch.setattr(faces, "detect", lambda frame, _: np.array(boxes[current["frame"]], float).reshape(-1, 5))
        for current["frame"] in range(len(boxes)):
            centres = [(int(x + w / 2), int(y + h / 2)) for x, y, w, h, _ in boxes[current["frame"]]]
            tracker.add_frame(current["frame"], scene(*((x, y, 100 + n * 50 % 156) for n, (x, y) in enumerate(centres))))
        return tracker.to_clip(media or clip_of(len(boxes)))

    return run


def centre(crop: np.ndarray) -> tuple[int, int]:
    """Return the position (x, y) in the scene of the middle pixel of a crop."""
    middle = crop[len(crop) // 2, len(crop) // 2].astype(int)
    return middle[0], middle[1]


def test_crop_is_a_square_of_native_pixels_around_the_box():
    crop = faces.crop_square(scene(), (100, 60, 1.3 * 40))
    assert crop.shape == (52, 52, 3) and tuple(crop[0, 0, :2]) == (74, 34) and tuple(crop[-1, -1, :2]) == (125, 85)


@pytest.mark.parametrize(
    ("square", "corner", "side"),
    [
        ((5, 60, 40), (0, 40), 40),  # moved to the right
        ((195, 118, 40), (160, 80), 40),  # moved to the left and up
        ((-50, -50, 30), (0, 0), 30),
        ((100, 60, 500), (40, 0), 120),  # shrunk to the shorter side, around the same centre
        ((10, 60, 500), (0, 0), 120),
        ((100, 60, 0.2), (100, 60), 1),
    ],
)
def test_crop_stays_within_the_frame(square, corner, side):
    crop = faces.crop_square(scene(), square)
    assert crop.shape == (side, side, 3) and tuple(crop[0, 0, :2]) == corner


def test_crop_is_resized_once_and_keeps_no_frame_in_memory(monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda *_: np.array([[80, 40, 40, 30, 0.9]]))
    for size in (20, 52, 70):
        tracker, frame = FaceTracker(SETTINGS, size), scene()
        tracker.add_frame(0, frame)
        crop = tracker.to_clip(clip_of(1)).frames
        np.testing.assert_array_equal(crop[0], resize(scene()[29:81, 74:126], size))
        frame[:] = 0  # decoders reuse their buffers
        assert tracker.detections[0][0].crop.any() and tracker.detections[0][0].crop.base is None


def test_only_the_largest_face_is_cropped(follow):
    clip = follow([[(20, 20, 20, 20, 0.95), (120, 40, 40, 40, 0.8)]])
    assert centre(clip.frames[0]) == pytest.approx((140, 60), abs=3) and clip.note == ""
    assert (clip.width, clip.height, clip.indices, clip.total) == (200, 120, (0,), 1)
    small = (20, 20, 20, 20, 0.95)
    clip = follow([[small], [small, (120, 40, 40, 40, 0.8)], [small]])
    assert centre(clip.frames[0])[0] == pytest.approx(140, abs=3), "by the sum of areas, not by the number of frames"


def test_clip_keeps_one_identity_although_another_is_larger_in_a_frame(follow):
    left = [(20 + 6 * n, 40, 40, 40, 0.9) for n in range(4)]
    right = [(140, 50, side, side, 0.9) for side in (20, 50, 20, 20)]
    clip = follow([[left[0], right[0]], [right[1], left[1]], [left[2], right[2]], [right[3], left[3]]])
    assert [centre(crop)[0] for crop in clip.frames] == pytest.approx([40, 46, 52, 58], abs=3) and clip.note == ""


def test_moving_face_is_one_track(follow):
    clip = follow([[(10 + 28 * n, 40, 30, 30, 0.9)] for n in range(6)])
    assert [centre(crop)[0] for crop in clip.frames] == pytest.approx([25 + 28 * n for n in range(6)], abs=3)


def test_nearer_of_two_faces_continues_a_track(follow):
    clip = follow([[(60, 40, 30, 30, 0.9)], [(62, 40, 30, 30, 0.9), (84, 40, 30, 30, 0.9)]])
    assert [centre(crop)[0] for crop in clip.frames] == pytest.approx([75, 77], abs=2)


def test_passing_neighbours_are_distinguished_by_the_larger_overlap(follow):
    boxes = [[(60 + 5 * n, 20, 30, 30, 0.9), (100 - 5 * n, 60, 32, 32, 0.9)] for n in range(5)]
    clip = follow([pair[:: 1 if n % 2 else -1] for n, pair in enumerate(boxes)])
    assert [centre(crop)[1] for crop in clip.frames] == pytest.approx([76] * 5, abs=3)


def test_frames_without_the_face_get_the_nearest_crop_and_are_counted(follow):
    face, other = (60, 40, 30, 30, 0.9), (160, 90, 12, 12, 0.9)
    clip = follow([[], [face], [other], [], [(70, 40, 30, 30, 0.9)], [other]], clip_of(6, note="damaged: 6 of 9 frames intact"))
    assert [centre(crop)[0] for crop in clip.frames] == pytest.approx([75, 75, 75, 85, 85, 85], abs=3)
    assert clip.note == "damaged: 6 of 9 frames intact; no face in 4 of 6 frames"


def test_weak_detection_continues_a_track_but_starts_none(follow):
    clip = follow([[(60, 40, 30, 30, 0.9)], [(66, 40, 30, 30, 0.55)], [(72, 40, 30, 30, 0.4)], [(100, 10, 90, 90, 0.6)]])
    assert clip.note == "no face in 2 of 4 frames"
    assert [centre(crop)[0] for crop in clip.frames] == pytest.approx([75, 81, 81, 81], abs=3)


def test_no_face_is_a_failure_that_gives_the_best_score(follow):
    with pytest.raises(MediaError, match=r"^no face found \(best detection score 0.69, 0.7 required\)$"):
        follow([[(60, 40, 30, 30, 0.699)]])
    with pytest.raises(MediaError, match=r"score 0.62, 0.7 required"):
        follow([[(60, 40, 30, 30, 0.3)], [(60, 40, 30, 30, 0.625)], [(60, 40, 30, 30, 0.4)]])
    with pytest.raises(MediaError, match=r"^no face found \(best detection score 0.0, 0.7 required\)$"):
        follow([[], [], []])
    assert follow([[(60, 40, 30, 30, 0.35)]], settings=FaceSettings(Path("m"), "0", score=0.3)).frames.any()


def test_repeated_frames_of_a_damaged_video_keep_their_places(follow):
    boxes = [[(40, 40, 30, 30, 0.9)], [], [(80, 40, 30, 30, 0.9)]]
    clip = follow(boxes, clip_of(30, indices=(4, 4, 9, 20, 20, 20)))  # added as frames 0, 1 and 2
    assert [centre(crop)[0] for crop in clip.frames] == pytest.approx([55, 55, 55, 95, 95, 95], abs=3)
    assert clip.note == "no face in 1 of 6 frames" and clip.indices == (4, 4, 9, 20, 20, 20)
    with pytest.raises(ValueError, match="3 frames were searched for faces, but 4 were read"):
        follow(boxes, clip_of(4))


def test_adding_a_frame_twice_changes_nothing(monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda *_: np.array([[80, 40, 40, 30, 0.9], [10, 10, 20, 20, 0.8]]))
    once, twice = FaceTracker(SETTINGS, 16), FaceTracker(SETTINGS, 16)
    for tracker, times in ((once, 1), (twice, 2)):
        for _ in range(times):
            for position in (0, 5):
                tracker.add_frame(position, scene())
    np.testing.assert_array_equal(once.to_clip(clip_of(6, (0, 5))).frames, twice.to_clip(clip_of(6, (0, 5))).frames)


def test_only_the_largest_faces_of_a_crowd_are_kept(monkeypatch):
    crowd = np.array([[i % 20 * 10, 50, 5 + i / 100, 6, 0.9] for i in range(500)])
    monkeypatch.setattr(faces, "detect", lambda *_: crowd)
    tracker = FaceTracker(SETTINGS, 16)
    tracker.add_frame(0, scene())
    assert [face.area for face in tracker.detections[0]] == pytest.approx([6 * (5 + i / 100) for i in range(499, 494, -1)])


def test_all_faces_of_an_image_are_cropped_the_largest_first_as_it_is_alone(follow):
    boxes = [(20, 20, 26, 26, 0.95), (120, 40, 40, 44, 0.8), (60, 80, 30, 30, 0.69), (10, 90, 23, 23, 0.9), (90, 10, 24, 20, 0.9)]
    every = follow([boxes], settings=EVERY)
    assert every.faces == ((120, 40, 40, 44, 0), (20, 20, 26, 26, 0), (90, 10, 24, 20, 0)), "sure of, and at least 24 pixels"
    assert [centre(clip[0])[0] for clip in every.clips] == pytest.approx([140, 33, 102], abs=3) and every.note == ""
    alone = follow([boxes])
    np.testing.assert_array_equal(every.clips[0], alone.frames)
    assert alone.faces == () and len(alone.clips) == 1
    small = [(60, 60, 10, 10, 0.9)]
    assert follow([small], settings=EVERY).faces == ((60, 60, 10, 10, 0),), "the main face may be of any size"
    with pytest.raises(MediaError, match="no face found"):
        follow([[(60, 80, 30, 30, 0.69)]], settings=EVERY)


def test_of_a_crowd_the_largest_faces_are_used_and_the_note_says_so(follow):
    crowd = [(20 * (n % 9), 10 + 40 * (n // 9), 24 + n / 4, 24, 0.9) for n in range(12)]
    clip = follow([crowd], settings=EVERY)
    assert len(clip.clips) == 8 and clip.note == "more than 8 faces: only the largest are used"
    assert [face.left for face in clip.faces] == [20 * (n % 9) for n in range(11, 3, -1)]
    assert follow([crowd[:8]], settings=EVERY).note == ""


def test_each_face_of_a_video_is_a_clip_of_its_own(follow):
    left = [(20 + 6 * n, 40, 40, 40, 0.9) for n in range(4)]
    right = [(140, 50, side, side, 0.9) for side in (26, 30, 26, 26)]
    boxes = [[left[0], right[0]], [right[1], left[1]], [left[2]], [right[3], left[3]]]
    clip = follow(boxes, clip_of(8, indices=(0, 2, 5, 7)), settings=EVERY)
    assert [[centre(crop)[0] for crop in face] for face in clip.clips] == [
        pytest.approx([40, 46, 52, 58], abs=3), pytest.approx([153, 155, 155, 153], abs=3)]  # fmt: skip
    assert clip.faces == ((20, 40, 40, 40, 0), (140, 50, 30, 30, 2)), "where each is at its largest"
    np.testing.assert_array_equal(clip.clips[0], follow(boxes, clip_of(8, indices=(0, 2, 5, 7))).frames)


def test_the_main_face_of_a_crowded_video_does_not_depend_on_the_smaller_ones(follow):
    """In each frame the sixth face is where the largest was before, and would continue its track."""
    boxes = [[(10 + 30 * n + 5 * f, 10, 30 + n, 30, 0.9) for n in range(5)] + [(128 + 5 * f, 12, 29, 29, 0.9)] for f in range(3)]
    np.testing.assert_array_equal(follow(boxes, settings=EVERY).clips[0], follow(boxes).frames)


def test_settings_can_be_pickled_and_name_a_folder():
    assert pickle.loads(pickle.dumps(SETTINGS)) == SETTINGS
    assert SETTINGS.key == "yunet-01234567-1.3-0.7" and EVERY.key == "yunet-01234567-1.3-0.7-all8-24"
    options = itertools.product(("0" * 9, "1" * 9), (1.3, 2), (0.7, 0.8))
    keys = {FaceSettings(Path("m"), *values).key for values in options}
    assert len(keys) == 8


def test_given_model_is_used_as_it_is(tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"any")
    assert faces.model_path(tmp_path / "mine.onnx", tmp_path / "cache") == tmp_path / "mine.onnx"
    with pytest.raises(ValueError, match=r"no face model .*none.onnx. --data.face_model must name"):
        faces.model_path(tmp_path / "none.onnx", tmp_path)
    for content in (b"", b"no model at all"):
        (tmp_path / "mine.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"mine.onnx is not an ONNX file that OpenCV can read; expected YuNet's"):
            FaceSettings.from_model(tmp_path / "mine.onnx")


def test_settings_identify_the_model_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda *_: np.zeros((0, 5)))
    (tmp_path / "m.onnx").write_bytes(b"the model")
    sha256 = hashlib.sha256(b"the model").hexdigest()
    assert FaceSettings.from_model(tmp_path / "m.onnx") == FaceSettings(tmp_path / "m.onnx", sha256)


def test_changed_model_ends_the_run_instead_of_failing_the_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"another model")
    for name, reason in (
        ("m.onnx", "has changed: its SHA-256 is .*, expected 0123456789abcdef"),
        ("gone.onnx", "cannot be read: No such"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            FaceTracker(FaceSettings(tmp_path / name, "0123456789abcdef"), 20).add_frame(0, scene())
        assert not isinstance(error.value, MediaError)


def test_official_model_is_downloaded_once_and_checked(tmp_path, monkeypatch):
    served = tmp_path / "served" / "yunet.onnx"
    served.parent.mkdir()
    served.write_bytes(b"the model")
    monkeypatch.setattr(faces, "URL", served.as_uri())
    with pytest.raises(ValueError, match=f"expected {faces.SHA256}. Download file:.* and save it as .*yunet.onnx, or"):
        faces.model_path(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "a wrong file must not be kept"
    monkeypatch.setattr(faces, "SHA256", hashlib.sha256(b"the model").hexdigest())
    cached = faces.model_path(None, tmp_path / "cache")
    assert cached == tmp_path / "cache" / "yunet.onnx" and cached.read_bytes() == b"the model"
    served.unlink()
    assert faces.model_path(None, tmp_path / "cache") == cached, "the second time needs no network"
    cached.write_bytes(b"half the mod")
    with pytest.raises(ValueError, match="save it as .*yunet.onnx"):
        faces.model_path(None, tmp_path / "cache")


def test_offline_error_says_what_to_download_and_where_to_save_it(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "URL", (tmp_path / "gone.onnx").as_uri())
    message = r"cannot be downloaded \(.*\). Download file:.*gone.onnx and save it as .*/c/gone.onnx"
    with pytest.raises(ValueError, match=message) as error:
        faces.model_path(None, tmp_path / "c")
    assert "\n" not in str(error.value) and "--data.face_model" in str(error.value)


@pytest.mark.skipif("TFDETECT_REAL_FILES" not in os.environ, reason="TFDETECT_REAL_FILES (YuNet and photos) is not set")
def test_yunet_finds_the_face_in_photos_of_any_size():
    shared = Path(os.environ["TFDETECT_REAL_FILES"])
    shared = shared if (shared / "weights").exists() else shared / "data"
    settings = FaceSettings.from_model(shared / "weights" / "yunet" / "yunet_n_dynamic.onnx")
    for path in sorted((shared / "images" / "stylegan_faces" / "real").iterdir())[:5]:
        photo = read_media(path).frames[0]
        left, top, width, height, score = max(faces.detect(photo, settings), key=lambda row: row[4])
        assert score > 0.85 and 90 < left + width / 2 < 166 and 100 < top + height / 2 < 190 and 80 < height < 240
        larger = np.kron(photo[32:240, 32:240], np.ones((6, 6, 1), np.uint8))  # the face fills 1248 x 1248 pixels
        huge = max(faces.detect(larger, settings), key=lambda row: row[4])
        assert huge[4] > 0.7 and huge[:4] / 6 == pytest.approx([left - 32, top - 32, width, height], abs=14)
        small = max(faces.detect(resize(photo, 32), settings), key=lambda row: row[4])
        assert small[4] > 0.7 and small[:4] * 8 == pytest.approx([left, top, width, height], abs=20)
        assert not len(faces.detect(np.full_like(photo, 127), settings))
