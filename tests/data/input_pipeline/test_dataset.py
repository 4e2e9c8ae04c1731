"""Batches: all files in each epoch, in a reproducible order, with bounded memory; and decoding in the graph."""

import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from in_process import decode_here

from tfdetect.data.input_pipeline import dataset
from tfdetect.data.layouts import detect
from tfdetect.data.media import frames as media_frames
from tfdetect.data.media import tf_decode, tf_images
from tfdetect.data.media.read import read_media
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipReader, ClipSpec
from tfdetect.settings import Train

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", params=["npy", "tfrecord"])
def prepared(request, videos, tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("cache"), ClipSpec(4, 16), request.param)
    return decode.prepare(detect.read(videos), cache, runner=decode_here), cache


def test_evaluation_batches_have_every_input_once(prepared):
    table, cache = prepared
    for single, count in ((False, 40), (True, 160)):
        batches = dataset.evaluation_batches(table, cache, single, 7).as_numpy_iterator()
        clips, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        rows = dataset.expand_frames(table, single)
        assert clips.shape == (count, 1 if single else 4, 16, 16, 3) and clips.dtype == np.uint8
        assert (labels[:, 0] == rows["label"]).all()
        expected = cache.load(rows["sha"].iloc[-1])
        assert (clips[-1] == (expected[-1:] if single else expected)).all()


def keys(data, steps):
    """Return the first pixels of each clip in the first `steps` batches."""
    batches = [clips.reshape(len(clips), -1)[:, :50] for clips, *_ in data.take(steps).as_numpy_iterator()]
    return [bytes(row) for batch in batches for row in batch]


def test_each_epoch_shuffles_all_files_reproducibly(prepared):
    table, cache = prepared
    assert dataset.steps_per_epoch(table, False, 8) == 5
    first, second = (keys(dataset.training_batches(table, cache, False, Train(batch=8, seed=3), epoch, 9), 5) for epoch in (0, 1))
    both = keys(dataset.training_batches(table, cache, False, Train(batch=8, seed=3), 0, 9), 10)
    assert both == first + second, "a resumed run sees the same batches"
    assert sorted(first) == sorted(second) and first != second
    assert keys(dataset.training_batches(table, cache, False, Train(batch=8, seed=4), 0, 9), 5) != first
    ordered = keys(dataset.evaluation_batches(table, cache, False, 40), 1)
    positions = [ordered.index(key) for key in first[:8]]
    assert max(positions) - min(positions) > 16, "a first batch of neighbours is not a full shuffle"


def test_fewer_files_than_a_batch_still_train(prepared):
    table, cache = prepared
    batches = list(dataset.training_batches(table.head(3).reset_index(drop=True), cache, False, Train(batch=8), 0, 2))
    assert [len(labels) for _, labels, _ in batches] == [3, 3]


MEMORY = """
import sys
import numpy as np, pandas as pd, tensorflow as tf
from pathlib import Path
from tfdetect.settings import Train
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
cache = Cache(Path(sys.argv[1]), ClipSpec(8, 128))
with cache.writer() as writer:
    for number in range(256):
        about = {"frames": 8, "width": 128, "height": 128, "note": ""}
        writer.add_clip(f"{number:064d}", np.full((8, 128, 128, 3), number, np.uint8), about)
def peak(count):
    table = pd.DataFrame({"sha": [f"{n:064d}" for n in range(count)], "label": 0, "frames": 8})
    data = dataset.training_batches(table, cache, False, Train(batch=8), 0, 256 // count)
    peak_bytes = 0
    for clips, *_ in data:
        peak_bytes = max(peak_bytes, 4096 * int(open("/proc/self/statm").read().split()[1]))
    return peak_bytes
peak(32)
small, large = peak(32), peak(256)
print(small / 2**20, large / 2**20)
sys.exit(large - small > 32 * 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the process's size from /proc")
def test_memory_does_not_grow_with_the_data(tmp_path):
    """256 clips have 100 MB and 32 have 12 MB, but peak memory differs by less than a third of the 88 MB between them."""
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_graph_decodes_jpeg_like_the_reader(tmp_path, rng, orientation):
    from PIL import Image

    image = cv2.GaussianBlur(rng.integers(0, 256, (40, 56, 3), np.uint8), (0, 0), 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif, quality=90)
    decoded = tf_decode.decode_image(tf.constant((tmp_path / "a.jpg").read_bytes())).numpy()[0]
    assert np.array_equal(decoded, read_media(tmp_path / "a.jpg").frames[0])


def test_the_graph_reads_the_orientation_in_both_byte_orders_and_only_from_exif():
    little = b"\xff\xd8\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    big = b"\xff\xd8\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0"
    for data, orientation in ((little, 6), (big, 3), (little.replace(b"Exif", b"Exam"), 1), (b"\xff\xd8\xff", 1)):
        assert int(tf_images.exif_orientation(tf.constant(data))) == orientation


def test_the_reader_does_not_break_tensorflows_png_decoder():
    """decord's libraries, if loaded before those of TensorFlow, once replaced them."""
    code = "import cv2, numpy as np, tfdetect.data.media.video, tensorflow as tf\n"
    code += "print(tf.io.decode_image(cv2.imencode('.png', np.zeros((20, 30, 3), np.uint8))[1].tobytes()).shape)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "(20, 30, 3)" in done.stdout, done.stderr


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """Six images in which the colour of a pixel tells its row, column and file."""
    folder = tmp_path_factory.mktemp("maps")
    for number in range(6):
        image = np.full((40, 60, 3), number, np.uint8)
        image[..., 0], image[..., 1] = np.arange(40)[:, None], np.arange(60)
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return pd.DataFrame({"path": [str(folder / f"{number}.png") for number in range(6)], "label": [0, 1] * 3})


def corners(maps, kind, crops, first, last):
    """Return the {file: top left corners of its crops} of each epoch in training, all of them crops of the file."""
    cache = Cache(Path(maps["path"][0]).parent / f"cache-{crops}", ClipSpec(1, 16, fit=media_frames.Fit("crop", crops)), kind)
    table = decode.prepare(maps, cache, runner=decode_here)
    epochs = []
    for number, (clips, *_) in enumerate(dataset.training_batches(table, cache, True, Train(batch=3, seed=5), first, last)):
        if number % (2 * crops) == 0:
            epochs.append({file: [] for file in range(6)})
        for clip in clips.numpy()[:, 0]:
            top, left, file = map(int, clip[0, 0])
            assert (clip[..., 0] == top + np.arange(16)[:, None]).all() and (clip[..., 1] == left + np.arange(16)).all()
            epochs[-1][file].append((top, left))
    return epochs


@pytest.mark.parametrize("crops", [1, 3])
def test_encoded_images_are_cropped_at_random_in_training(maps, crops):
    epochs = corners(maps, "tfrecord", crops, 0, 4)
    assert {len(places) for epoch in epochs for places in epoch.values()} == {crops}
    drawn = [place for epoch in epochs for places in epoch.values() for place in places]
    assert len(set(drawn)) > 10 and all(one != other for one, other in itertools.combinations(epochs, 2)), "of 24 places"
    assert {top for top, _ in drawn} <= set(range(0, 25, 8)) and {left for _, left in drawn} <= set(range(0, 45, 8))
    assert corners(maps, "tfrecord", crops, 2, 4) == epochs[2:], "a resumed run sees the same crops"
    fixed = media_frames.crop_positions(40, 60, 16, crops)
    assert all(sorted(places) == fixed for places in corners(maps, "npy", crops, 0, 1)[0].values()), "arrays hold fixed ones"


def test_every_place_can_be_drawn():
    frames = tf.zeros((1, 50, 31, 3), tf.uint8)
    places = np.float32([[0, 0], [0.3, 0.6], [0.999999, np.nextafter(np.float32(1), 0)]])
    found = [tuple(tf_decode.corner_at(frames, tf.constant(place), 16).numpy()) for place in places]
    assert found == [(0, 0), (8, 8), (32, 8)]
    assert tuple(tf_decode.corner_at(frames, tf.constant(places[2]), 64).numpy()) == (0, 0)


@pytest.mark.parametrize("rows, part, expected", [
    (7, dataset.Part(0, 2, 2), [[0, 1], [4, 5]]), (7, dataset.Part(1, 2, 2), [[2, 3], [6]]),
    (5, dataset.Part(1, 2, 2), [[2, 3], []]), (8, dataset.Part(0, 2, 4), [[0], [2], [4], [6]])])  # fmt: skip
def test_each_worker_takes_its_slices_of_a_batch(rows, part, expected):
    batches = tf.data.Dataset.range(rows).batch(4).map(lambda numbers: (numbers, numbers * 2))
    found = [[values.numpy().tolist() for values in batch] for batch in part.of(batches)]
    assert found == [[numbers, [2 * number for number in numbers]] for numbers in expected]


@pytest.mark.parametrize("augment, share", [("", 2), ("flip", 1)])
def test_a_worker_reads_only_its_part(prepared, augment, share, monkeypatch):
    table, cache = prepared
    settings = Train(batch=8, augment=augment)
    whole = [batch[1].numpy() for batch in dataset.training_batches(table, cache, False, settings, 0, 1)]
    parts, read = [], []
    for name in ("read", "record"):
        original = getattr(ClipReader, name)

        def note(self, number, *rest, original=original):
            read.append(number)
            return original(self, number, *rest)

        monkeypatch.setattr(ClipReader, name, note)
    list(dataset.training_batches(table, cache, False, settings, 0, 1))
    reads_of_whole = len(read)
    for worker in range(2):
        read.clear()
        batches = dataset.training_batches(table, cache, False, settings, 0, 1, dataset.Part(worker, 2, 2))
        parts.append([batch[1].numpy() for batch in batches])
        assert len(read) == reads_of_whole // share
    for batch, one, two in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch, np.concatenate([one, two]))
