"""How a frame becomes squares: each fit against plain NumPy, and the graph against OpenCV."""

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tfdetect.data.media import faces, frames, tf_decode
from tfdetect.data.media.frames import Fit, crop_positions, to_squares
from tfdetect.data.media.read import read_media

SIZE = 24
SHAPES = [(24, 24), (60, 41), (41, 60), (24, 37), (37, 24), (10, 40), (40, 11), (23, 24), (12, 12), (9, 5), (3, 70), (2, 1),
          (1, 90), (1, 1), (25, 25), (48, 48), (96, 49)]  # fmt: skip
FITS = [Fit("squeeze"), Fit("shortest_side"), Fit("crop"), Fit("pad"), Fit("crop", 4), Fit("crop", 5), Fit("crop", 12)]


def picture(shape, seed=0):
    """Return a frame in which no two pixels of a row or column are alike, smooth enough to be resized."""
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 0.8)


def mirrored(length, size, step=1):
    """Return, for each of `size` positions around `length` pixels, the pixel that a walk between both ends arrives at."""
    before = (size - length) // 2 // step * step
    walk = [*range(length), *range(length - 2, 0, -1)]
    return [walk[(k - before) % len(walk)] for k in range(size)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_crop_is_the_centre_in_native_pixels_mirrored_where_there_are_none(shape):
    """It starts on the grid of 8 x 8 blocks, and so does a picture that is mirrored."""
    frame = picture(shape)
    rows, columns = (range((n - SIZE) // 8 // 2 * 8, SIZE + (n - SIZE) // 8 // 2 * 8) if n >= SIZE else mirrored(n, SIZE, 8)
                     for n in shape)  # fmt: skip
    np.testing.assert_array_equal(to_squares(frame, SIZE, Fit("crop")), frame[np.ix_(rows, columns)][None])


def test_the_shortest_side_is_resized_and_the_longer_one_cropped():
    frame = picture((48, 96))
    small = frames.resize(frame[:, 24:72], SIZE)
    np.testing.assert_array_equal(to_squares(frame, SIZE, Fit("shortest_side"))[0], small)
    halved = frame.reshape(24, 2, 48, 2, 3).mean((1, 3))[:, 12:36]  # resized as a whole, then cropped
    assert np.abs(small - halved).max() <= 0.5


@pytest.mark.parametrize("shape, inner", [((48, 96), (12, 24)), ((96, 32), (24, 8)), ((7, 5), (24, 17)), ((1, 500), (1, 24))])
def test_padding_keeps_the_aspect_ratio_and_mirrors_the_rest(shape, inner):
    frame = picture(shape)
    square = to_squares(frame, SIZE, Fit("pad"))[0]
    top, left = ((SIZE - side) // 2 for side in inner)
    content = square[top : top + inner[0], left : left + inner[1]]
    np.testing.assert_array_equal(square, content[np.ix_(*(mirrored(side, SIZE) for side in inner))])
    if shape == (48, 96):
        assert np.abs(content - frame.reshape(12, 4, 24, 4, 3).mean((1, 3))).max() <= 0.5


def test_squeezing_is_the_plain_resize_and_a_square_of_the_right_size_stays_as_it_is():
    frame = picture((60, 41))
    np.testing.assert_array_equal(to_squares(frame, SIZE)[0], frames.resize(frame, SIZE))
    square = picture((SIZE, SIZE))
    for fit in FITS:
        np.testing.assert_array_equal(to_squares(square, SIZE, fit), square[None])


def test_crops_are_the_centre_then_the_corners_then_an_even_grid():
    assert crop_positions(184, 123, 24, 1) == [(80, 48)]
    assert crop_positions(184, 123, 24, 5) == [(0, 0), (0, 96), (80, 48), (160, 0), (160, 96)], "the middle one is the centre"
    assert crop_positions(184, 123, 24, 9) == [(top, left) for top in (0, 80, 160) for left in (0, 48, 96)]
    assert crop_positions(184, 123, 24, 17) == [(top, left) for top in (0, 40, 80, 120, 160) for left in (0, 48, 96)]
    assert crop_positions(24, 184, 24, 6) == [(0, left) for left in (0, 32, 64, 96, 128, 160)], "one row in a wide picture"
    assert crop_positions(24, 184, 24, 5) == [(0, 0), (0, 160), (0, 80)], "the ends of one row and its centre"
    for crops in (1, 5, 9, 30):
        assert crop_positions(24, 24, 24, crops) == crop_positions(5, 31, 24, crops) == [(0, 0)], "nothing twice"


def test_crops_are_different_and_inside_and_never_more_than_asked_for():
    for height, width, crops in itertools.product((5, 24, 32, 39, 41, 64), (24, 31, 49, 400), range(1, 31)):
        positions = crop_positions(height, width, 24, crops)
        assert len(set(positions)) == len(positions) <= crops
        assert all(0 <= top <= max(height - 24, 0) and 0 <= left <= max(width - 24, 0) for top, left in positions)
        assert not np.any(np.array(positions) % 8), "JPEG's blocks keep their places"


@pytest.fixture(scope="module")
def graph():
    """Return the graph's twin of `to_squares`, traced once for each fit."""
    traced = {fit: tf.function(lambda images, fit=fit: tf_decode.to_squares(images, SIZE, fit), autograph=False, input_signature=[
        tf.TensorSpec((None, None, None, 3), tf.uint8)]) for fit in FITS}  # fmt: skip
    return lambda images, fit: traced[fit](images).numpy()


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.key or "squeeze")
def test_the_graph_makes_the_same_squares(graph, fit):
    for shape in SHAPES:
        batch = np.stack([picture(shape, seed) for seed in (0, 1)])
        expected = np.concatenate([to_squares(frame, SIZE, fit) for frame in batch])
        for found in (graph(batch, fit), tf_decode.to_squares(tf.constant(batch), SIZE, fit).numpy()):
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, expected, f"{fit}, {shape}")


@pytest.mark.parametrize(("shape", "size"), [
    ((128, 128), 112), ((64, 64), 56), ((128, 64), 24), ((144, 144), 24), ((378, 504), 28),  # sums that end in one half
    ((480, 640), 224), ((720, 1280), 128), ((1080, 1920), 224), ((375, 500), 380), ((600, 801), 299),
    ((64, 64), 224), ((100, 100), 299), ((218, 178), 380), ((256, 255), 256), ((100, 3000), 128), ((1, 1), 24),
    ((1025, 1031), 1024),  # less than 1/1000 of a pixel
])  # fmt: skip
def test_the_graph_resizes_to_the_same_pixels(shape, size):
    """A level more or less in a hundredth of the pixels moves the scores of detectors on frozen features."""
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for frame in (noise, noise // 255 * 255, noise % 2):  # also sparse and nearly flat, where most sums are close to one half
        np.testing.assert_array_equal(tf_decode.resize(tf.constant(frame[None]), size)[0], frames.resize(frame, size))


def test_the_graph_shrinks_the_longest_lines_to_the_same_pixels():
    """In units of 1/new of an old pixel, in which areas are counted, they are longer than an int32 holds."""
    line = picture((1, 1_000_000))
    found = tf_decode.resize_to(tf.constant(line[None]), tf.constant([1, 2200]))
    np.testing.assert_array_equal(found[0], frames.resize_to(line, 1, 2200))


def test_the_graph_finds_the_same_crops_in_large_pictures():
    for height, width, crops in itertools.product((24, 100, 4000), (31, 9000), (2, 5, 7, 16, 40)):
        found = tf_decode.crop_positions(tf.constant([height, width]), SIZE, crops).numpy()
        assert [tuple(corner) for corner in found] == crop_positions(height, width, SIZE, crops)


def test_pictures_that_are_nearly_lines_need_no_memory(graph):
    """A square of the longer side would take 75 GB."""
    line = np.random.default_rng(0).integers(0, 256, (1, 160_000, 3), np.uint8)
    for frame, fit in itertools.product((line, line.transpose(1, 0, 2)), FITS[1:]):
        np.testing.assert_array_equal(graph(frame[None], fit), to_squares(frame, SIZE, fit))


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.key or "squeeze")
def test_images_and_videos_are_read_as_squares(videos, tmp_path, fit):
    cv2.imwrite(str(tmp_path / "i.png"), picture((60, 41)))
    for path in (tmp_path / "i.png", next(videos.glob("**/*.mp4"))):
        native, found = read_media(path, 3), read_media(path, 3, size=SIZE, fit=fit)
        expected = np.concatenate([to_squares(frame, SIZE, fit) for frame in native.frames])
        np.testing.assert_array_equal(found.frames, expected)
        assert replace(found, frames=native.frames) == replace(native, frames=native.frames)


def test_the_crop_of_a_face_is_fitted_too(monkeypatch):
    monkeypatch.setattr(faces, "detect", lambda frame, _: np.array([[40.0, 30.0, 30.0, 40.0, 0.9]]))
    frame = picture((120, 200))
    square = faces.crop_square(frame, (55, 50, 52))
    for fit in (Fit("squeeze"), Fit("crop"), Fit("pad")):
        tracker = faces.FaceTracker(faces.FaceSettings(Path("yunet.onnx"), "0" * 64), SIZE, fit)
        tracker.add_frame(0, frame)
        np.testing.assert_array_equal(tracker.detections[0][0].crop, to_squares(square, SIZE, fit)[0])
