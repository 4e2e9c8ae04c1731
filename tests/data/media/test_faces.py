"""Faces: cut out of the native frame where the detector saw them, followed by overlap, and never made up."""

import hashlib
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


def scene(*marks: tuple[int, int, int], height: int = 120, width: int = 200) -> np.ndarray:
    """A frame of colours that tell where they are: red is the column, green the row, blue 0, and (x, y, value) marks 9 x 9."""
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
    """follow(boxes of each frame, found, ...) -> the clip; a box is (left, top, width, height, score)."""

    def run(boxes, found=None, size=20, settings=SETTINGS):
        collector, now = FaceTracker(settings, size), {}
        monkeypatch.setattr(faces, "detect", lambda frame, _: np.array(boxes[now["at"]], float).reshape(-1, 5))
        for now["at"] in range(len(boxes)):
            centres = [(int(x + w / 2), int(y + h / 2)) for x, y, w, h, _ in boxes[now["at"]]]
            collector.look(now["at"], scene(*((x, y, 100 + n * 50) for n, (x, y) in enumerate(centres))))
        return collector.clip(found or clip_of(len(boxes)))

    return run


def centre(crop: np.ndarray) -> tuple[int, int]:
    """(x, y) in the scene of the middle pixel of a crop."""
    middle = crop[len(crop) // 2, len(crop) // 2].astype(int)
    return middle[0], middle[1]


def test_the_crop_is_a_square_of_native_pixels_around_the_box():
    found = faces.crop_square(scene(), (100, 60, 1.3 * 40))
    assert found.shape == (52, 52, 3) and tuple(found[0, 0, :2]) == (74, 34) and tuple(found[-1, -1, :2]) == (125, 85)


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
def test_a_crop_never_leaves_the_frame(square, corner, side):
    found = faces.crop_square(scene(), square)
    assert found.shape == (side, side, 3) and tuple(found[0, 0, :2]) == corner


def test_the_crop_is_resized_once_and_keeps_no_frame_in_memory(monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda *_: np.array([[80, 40, 40, 30, 0.9]]))
    for size in (20, 52, 70):
        collector, frame = FaceTracker(SETTINGS, size), scene()
        collector.look(0, frame)
        found = collector.clip(clip_of(1)).frames
        np.testing.assert_array_equal(found[0], resize(scene()[29:81, 74:126], size))
        frame[:] = 0  # decoders use their memory again
        assert collector.sights[0][0].crop.any() and collector.sights[0][0].crop.base is None


def test_the_largest_face_is_taken_and_others_are_not(follow):
    found = follow([[(20, 20, 20, 20, 0.95), (120, 40, 40, 40, 0.8)]])
    assert centre(found.frames[0]) == pytest.approx((140, 60), abs=3) and found.note == ""
    assert (found.width, found.height, found.indices, found.total) == (200, 120, (0,), 1)
    small = (20, 20, 20, 20, 0.95)
    found = follow([[small], [small, (120, 40, 40, 40, 0.8)], [small]])
    assert centre(found.frames[0])[0] == pytest.approx(140, abs=3), "by the sum of areas, not by the number of frames"


def test_one_identity_stays_one_clip_though_another_is_larger_in_a_frame(follow):
    left = [(20 + 6 * n, 40, 40, 40, 0.9) for n in range(4)]
    right = [(140, 50, side, side, 0.9) for side in (20, 50, 20, 20)]
    found = follow([[left[0], right[0]], [right[1], left[1]], [left[2], right[2]], [right[3], left[3]]])
    assert [centre(crop)[0] for crop in found.frames] == pytest.approx([40, 46, 52, 58], abs=3) and found.note == ""


def test_a_face_that_walks_through_the_picture_is_one_track(follow):
    found = follow([[(10 + 28 * n, 40, 30, 30, 0.9)] for n in range(6)])
    assert [centre(crop)[0] for crop in found.frames] == pytest.approx([25 + 28 * n for n in range(6)], abs=3)


def test_of_two_faces_near_one_track_the_nearer_continues_it(follow):
    found = follow([[(60, 40, 30, 30, 0.9)], [(62, 40, 30, 30, 0.9), (84, 40, 30, 30, 0.9)]])
    assert [centre(crop)[0] for crop in found.frames] == pytest.approx([75, 77], abs=2)


def test_neighbours_that_pass_each_other_are_told_apart_by_the_larger_overlap(follow):
    boxes = [[(60 + 5 * n, 20, 30, 30, 0.9), (100 - 5 * n, 60, 32, 32, 0.9)] for n in range(5)]
    found = follow([pair[:: 1 if n % 2 else -1] for n, pair in enumerate(boxes)])
    assert [centre(crop)[1] for crop in found.frames] == pytest.approx([76] * 5, abs=3)


def test_frames_without_the_face_get_the_nearest_and_are_counted(follow):
    face, other = (60, 40, 30, 30, 0.9), (160, 90, 12, 12, 0.9)
    found = follow([[], [face], [other], [], [(70, 40, 30, 30, 0.9)], [other]], clip_of(6, note="damaged: 6 whole frames of 9"))
    assert [centre(crop)[0] for crop in found.frames] == pytest.approx([75, 75, 75, 85, 85, 85], abs=3)
    assert found.note == "damaged: 6 whole frames of 9; no face in 4 of 6 frames"


def test_a_weak_sight_continues_a_sure_track_and_begins_none(follow):
    found = follow([[(60, 40, 30, 30, 0.9)], [(66, 40, 30, 30, 0.55)], [(72, 40, 30, 30, 0.4)], [(100, 10, 90, 90, 0.6)]])
    assert found.note == "no face in 2 of 4 frames"
    assert [centre(crop)[0] for crop in found.frames] == pytest.approx([75, 81, 81, 81], abs=3)


def test_no_face_is_a_failure_that_tells_how_near_it_was(follow):
    with pytest.raises(MediaError, match=r"^no face found \(largest detection score 0.69, 0.7 needed\)$"):
        follow([[(60, 40, 30, 30, 0.699)]])
    with pytest.raises(MediaError, match=r"score 0.62, 0.7 needed"):
        follow([[(60, 40, 30, 30, 0.3)], [(60, 40, 30, 30, 0.625)], [(60, 40, 30, 30, 0.4)]])
    with pytest.raises(MediaError, match=r"^no face found \(largest detection score 0.0, 0.7 needed\)$"):
        follow([[], [], []])
    assert follow([[(60, 40, 30, 30, 0.35)]], settings=FaceSettings(Path("m"), "0", score=0.3)).frames.any()


def test_repeated_frames_of_a_damaged_video_keep_their_places(follow):
    boxes = [[(40, 40, 30, 30, 0.9)], [], [(80, 40, 30, 30, 0.9)]]
    found = follow(boxes, clip_of(30, indices=(4, 4, 9, 20, 20, 20)))  # looked at as 0, 1 and 2 among the whole ones
    assert [centre(crop)[0] for crop in found.frames] == pytest.approx([55, 55, 55, 95, 95, 95], abs=3)
    assert found.note == "no face in 1 of 6 frames" and found.indices == (4, 4, 9, 20, 20, 20)
    with pytest.raises(ValueError, match="3 frames were searched for faces, 4 were read"):
        follow(boxes, clip_of(4))


def test_a_second_look_at_a_frame_changes_nothing(monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda *_: np.array([[80, 40, 40, 30, 0.9], [10, 10, 20, 20, 0.8]]))
    once, twice = FaceTracker(SETTINGS, 16), FaceTracker(SETTINGS, 16)
    for collector, times in ((once, 1), (twice, 2)):
        for _ in range(times):
            for position in (0, 5):
                collector.look(position, scene())
    np.testing.assert_array_equal(once.clip(clip_of(6, (0, 5))).frames, twice.clip(clip_of(6, (0, 5))).frames)


def test_of_a_crowd_only_the_largest_are_kept(monkeypatch):
    crowd = np.array([[i % 20 * 10, 50, 5 + i / 100, 6, 0.9] for i in range(500)])
    monkeypatch.setattr(faces, "detect", lambda *_: crowd)
    collector = FaceTracker(SETTINGS, 16)
    collector.look(0, scene())
    assert [sight.area for sight in collector.sights[0]] == pytest.approx([6 * (5 + i / 100) for i in range(499, 494, -1)])


def test_settings_travel_to_other_processes_and_name_a_folder():
    assert pickle.loads(pickle.dumps(SETTINGS)) == SETTINGS
    assert SETTINGS.key == "yunet-01234567-1.3-0.7"
    keys = {FaceSettings(Path("m"), sha, margin, score).key for sha in ("0" * 9, "1" * 9) for margin in (1.3, 2) for score in (0.7, 0.8)}
    assert len(keys) == 8


def test_a_given_model_is_used_as_it_is(tmp_path):
    (tmp_path / "mine.onnx").write_bytes(b"any")
    assert faces.model_path(tmp_path / "mine.onnx", tmp_path / "cache") == tmp_path / "mine.onnx"
    with pytest.raises(ValueError, match=r"no face model .*none.onnx; --data.face_model must name"):
        faces.model_path(tmp_path / "none.onnx", tmp_path)
    for content in (b"", b"no model at all"):
        (tmp_path / "mine.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"mine.onnx is no ONNX file that OpenCV reads; expected YuNet's"):
            FaceSettings.from_model(tmp_path / "mine.onnx")


def test_the_settings_know_the_model_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda *_: np.zeros((0, 5)))
    (tmp_path / "m.onnx").write_bytes(b"the model")
    assert FaceSettings.from_model(tmp_path / "m.onnx") == FaceSettings(tmp_path / "m.onnx", hashlib.sha256(b"the model").hexdigest())


def test_another_model_in_its_place_ends_the_run_and_is_no_fault_of_the_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"another model")
    for name, reason in (
        ("m.onnx", "has the SHA-256 .*, 0123456789abcdef was expected"),
        ("gone.onnx", "cannot be read: No such"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            FaceTracker(FaceSettings(tmp_path / name, "0123456789abcdef"), 20).look(0, scene())
        assert not isinstance(error.value, MediaError)


def test_the_official_model_is_fetched_once_and_checked(tmp_path, monkeypatch):
    served = tmp_path / "served" / "yunet.onnx"
    served.parent.mkdir()
    served.write_bytes(b"the model")
    monkeypatch.setattr(faces, "URL", served.as_uri())
    with pytest.raises(ValueError, match=f"{faces.SHA256} was expected: fetch file:.*, save it as .*yunet.onnx, or"):
        faces.model_path(None, tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "what is wrong must not be kept"
    monkeypatch.setattr(faces, "SHA256", hashlib.sha256(b"the model").hexdigest())
    kept = faces.model_path(None, tmp_path / "cache")
    assert kept == tmp_path / "cache" / "yunet.onnx" and kept.read_bytes() == b"the model"
    served.unlink()
    assert faces.model_path(None, tmp_path / "cache") == kept, "the second time needs no network"
    kept.write_bytes(b"half the mod")
    with pytest.raises(ValueError, match="save it as .*yunet.onnx"):
        faces.model_path(None, tmp_path / "cache")


def test_offline_one_sentence_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(faces, "URL", (tmp_path / "gone.onnx").as_uri())
    with pytest.raises(ValueError, match=r"cannot be fetched \(.*\): fetch file:.*gone.onnx, save it as .*/c/gone.onnx") as error:
        faces.model_path(None, tmp_path / "c")
    assert "\n" not in str(error.value) and "--data.face_model" in str(error.value)


@pytest.mark.skipif("TFDETECT_REAL_FILES" not in os.environ, reason="TFDETECT_REAL_FILES names no folder with YuNet and photos")
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
