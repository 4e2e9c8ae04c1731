"""Self-blended images: where they differ from the photograph, that they follow the face, and fakes written as files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from in_process import map_here
from scipy import ndimage

from tfdetect.data import made_fakes, manifest, self_blended
from tfdetect.data.made_fakes import FakeMaker, make_fakes
from tfdetect.data.media.faces import FaceSettings
from tfdetect.pandas_settings import pd

SIDE = 96
POINTS = self_blended.TYPICAL_POINTS * SIDE


@pytest.fixture
def photo(rng):
    """Return a picture (96, 96, 3) uint8 of smooth colours with fine grain."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE, 3)), (5, 5, 0))
    return np.clip(128 + 500 * smooth + rng.normal(0, 6, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def test_a_fake_differs_slightly_and_only_where_the_face_is(photo):
    fakes = np.array([self_blended.self_blend(photo, POINTS, (0, number), recolour_frame=False) for number in range(40)])
    changes = np.abs(fakes.astype(int) - photo).max(axis=3)
    assert len({fake.tobytes() for fake in fakes}) == 40 and (changes.max(axis=(1, 2)) > 5).all()
    assert not changes[:, :4].any() and not changes[:, :, :4].any() and not changes[:, :, -4:].any(), "the border is not the face"
    assert 1 < changes.mean() < 25, "another version of the same picture"
    assert changes.mean(axis=0)[40:75, 40:56].mean() > 3 * changes.mean(axis=0)[:20].mean()


def test_the_seed_decides_a_fake_and_the_input_is_kept(photo):
    before = photo.copy()
    first, again, other = (self_blended.self_blend(photo, POINTS, seed) for seed in ((3, 4), (3, 4), (3, 5)))
    assert np.array_equal(first, again) and not np.array_equal(first, other) and np.array_equal(photo, before)


def test_half_of_the_draws_recolour_the_picture_around_the_face(photo):
    corners = [self_blended.self_blend(photo, POINTS, (1, number))[:4].tobytes() != photo[:4].tobytes() for number in range(60)]
    alone = [not np.array_equal(self_blended.recolour_some(photo, (2, number)), photo) for number in range(60)]
    assert 18 <= sum(corners) <= 42 and 18 <= sum(alone) <= 42


@pytest.mark.parametrize("shape", range(len(self_blended.SHAPES)))
def test_every_mask_lies_on_the_face_wherever_it_is(monkeypatch, shape):
    monkeypatch.setattr(self_blended, "SHAPES", self_blended.SHAPES[shape : shape + 1])
    turned = (self_blended.TYPICAL_POINTS - 0.5)[:, ::-1] * (-0.4, 0.4) + (0.7, 0.3)  # small, on its side, in a corner
    for points in (self_blended.TYPICAL_POINTS, turned):
        masks = []
        for seed in range(10):
            draw = np.random.default_rng(seed)
            mask = self_blended.soften(self_blended.draw_mask(points, draw), draw)
            assert mask.min() >= 0 and mask.max() == pytest.approx(1) and set(mask.shape) <= set(range(192, 257))
            masks.append(cv2.resize(mask, (100, 100)))
        centre = ndimage.center_of_mass(np.mean(masks, axis=0))
        spread = np.linalg.norm(points[0] - points[1])
        assert np.linalg.norm(np.array(centre[::-1]) / 100 - points.mean(axis=0)) < 0.7 * spread
        assert 0.02 * spread**2 < np.mean(masks) < 8 * spread**2


@pytest.mark.parametrize("size", [(7, 9), (33, 64), (500, 400)])
def test_any_size_and_points_beyond_the_border_are_accepted(rng, size):
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    for factor in (0.5, 3):
        fake = self_blended.self_blend(frame, self_blended.TYPICAL_POINTS * size[::-1] * factor, (0, 1))
        assert fake.shape == frame.shape and fake.dtype == np.uint8


# --- As files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """Return a maker of two fakes of each file; it sees a face unless the picture is black."""

    def detect_largest(frame, settings):
        height, width = frame.shape[:2]
        box = np.array([0.3 * width, 0.3 * height, 0.4 * width, 0.4 * height, 0.9])
        corner, points = box[:2] - 0.15 * box[2:4], self_blended.TYPICAL_POINTS * 1.3 * box[2:4]
        return np.concatenate([box, (corner + points).ravel()]) if frame.any() else None

    monkeypatch.setattr(made_fakes, "detect_largest", detect_largest)
    monkeypatch.setattr(made_fakes, "map_unordered", map_here)
    return FakeMaker(tmp_path / "cache", 2, FaceSettings(tmp_path / "yunet.onnx", "0123456789abcdef"))


def write_photo(path, pixels):
    cv2.imwrite(str(path), pixels[..., ::-1])
    return str(path)


def test_fakes_are_png_files_that_equal_the_photo_around_the_face(photo, maker, tmp_path):
    path = write_photo(tmp_path / "a.png", photo)
    made = sorted(maker(path))
    fakes = [cv2.imread(fake)[..., ::-1] for fake in made]
    assert len(fakes) == 2 and all(fake.endswith(".png") for fake in made)
    assert not np.array_equal(*fakes) and not any(np.array_equal(fake, photo) for fake in fakes)
    outside = np.ones((SIDE, SIDE), bool)
    outside[SIDE // 6 : -SIDE // 6, SIDE // 6 : -SIDE // 6] = False
    assert all(np.array_equal(fake[outside], photo[outside]) for fake in fakes)
    content = [Path(fake).read_bytes() for fake in made]
    for fake in made:
        Path(fake).write_bytes(b"")
    assert sorted(maker(path)) == made and not Path(made[0]).read_bytes(), "existing files are kept"
    for fake in made:
        Path(fake).unlink()
    assert [Path(fake).read_bytes() for fake in sorted(maker(path))] == content, "and the same if made again"


def test_a_video_gives_fakes_of_several_frames(videos, maker):
    first, second = (cv2.imread(fake).astype(int) for fake in sorted(maker(str(min((videos / "real").iterdir())))))
    assert first.shape == (32, 32, 3) and np.abs(first - second)[:5].max() > 8, "the frames differ around the face, too"


def test_rows_of_fakes_keep_group_and_split_and_failures_have_a_reason(photo, maker, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    paths = [write_photo(tmp_path / "a.png", photo), write_photo(tmp_path / "black.png", 0 * photo), str(tmp_path / "text.png")]
    table = manifest.validate(pd.DataFrame({"path": paths, "label": "real", "split": ["val", "test", "test"],
                                            "group": ["ann", "ben", "cid"]}), "t")  # fmt: skip
    steps = []
    rows, failures = make_fakes(table, maker, progress=steps.append)
    assert rows[["label", "split", "group", "source"]].to_numpy().tolist() == [[1, "validation", "ann", "self-blended"]] * 2
    assert rows["path"].is_unique and failures[paths[1]] == "no face found" and set(failures) == set(paths[1:])
    assert [bool(step["error"]) for step in steps] == [False, True, True]
