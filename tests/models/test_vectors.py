"""The vectors that familiarity compares clips by: which layer, pooled how, in one pass; and the statistics of pixels."""

import keras
import numpy as np
import pytest
from keras import layers

from tfdetect.detector import find
from tfdetect.evaluation.familiarity import Vectors, fit
from tfdetect.models import vectors
from tfdetect.models.layers import common
from tfdetect.models.layers.pixel_statistics import PixelStatistics

SIZE = 32


def to_numpy(values):
    """Return the outputs of a network, of any backend, as NumPy arrays."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, values)


@pytest.mark.parametrize(("name", "settings", "layer"), [
    ("cnn_lstm", {}, "frames/frame_network/"), ("squeezenet", {"weights": "none", "sides": True}, "fire"),
    ("oc_fakedect", {}, "encoder/"), ("feature_oneclass", {"backbone": "cosines"}, "features"),
])  # fmt: skip
def test_each_detector_has_such_a_layer_and_its_scores_stay_the_same(name, settings, layer, rng):
    detector = find(name)(**settings)
    frames = 3 if detector.input_kind == "clip" else 1
    model = detector.build((frames, 64, 64, 3))
    path = vectors.content_layer(model, detector)
    assert path.startswith(layer)
    network, clips = vectors.WithVectors(model, path), rng.integers(0, 256, (3, frames, 64, 64, 3), np.uint8)
    scores, content, processing = to_numpy(network(clips, training=False))
    np.testing.assert_allclose(scores, to_numpy(model(clips, training=False)), atol=1e-5)
    assert content.shape[0] == processing.shape[0] == 3 and np.isfinite(content).all() and np.isfinite(processing).all()
    alone = to_numpy(network(clips[1:2], training=False))  # no clip gets what belongs to another one
    np.testing.assert_allclose(alone[1][0], content[1], rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(alone[2][0], processing[1], rtol=1e-4, atol=1e-5)


def model_of(frames):
    """A convolution for each frame, whose average over all positions and frames is known."""
    clip = keras.Input((frames, SIZE, SIZE, 3), dtype="uint8")
    convolutions = layers.Conv2D(5, 3, name="first"), layers.Conv2D(4, 3, name="second")
    network = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *convolutions])
    maps = common.PerFrame(network, name="frames")(layers.Rescaling(1 / 255)(clip))
    return keras.Model(clip, layers.Dense(1)(layers.GlobalAveragePooling3D()(maps))), network


def test_the_content_is_the_mean_over_positions_and_frames_and_a_layer_keeps_its_call(rng):
    model, network = model_of(3)
    clips = rng.integers(0, 256, (2, 3, SIZE, SIZE, 3), np.uint8)
    expected = to_numpy(network.layers[0](clips.reshape(6, SIZE, SIZE, 3) / np.float32(255))).reshape(2, -1, 5).mean(axis=1)
    content = to_numpy(vectors.WithVectors(model, f"frames/{network.name}/first")(clips)[1])
    np.testing.assert_allclose(content, expected, atol=1e-5)
    assert "call" not in vars(network.layers[0])
    fast = network.layers[0].call = network.layers[0].call  # as `fast_blocks` replaces it
    vectors.WithVectors(model, f"frames/{network.name}/first")(clips)
    assert vars(network.layers[0])["call"] is fast


def test_rows_beyond_the_batch_are_frames_of_clips_or_copies_of_the_batch():
    rows = np.arange(6, dtype=np.float32)[:, None]
    assert to_numpy(vectors.pool(rows, 2, True))[:, 0].tolist() == [1, 4]
    assert to_numpy(vectors.pool(rows, 2, False))[:, 0].tolist() == [2, 3]


def test_a_detector_may_name_its_layer_and_one_without_weights_has_its_clips(rng):
    clip = keras.Input((1, SIZE, SIZE, 3), dtype="uint8")
    bare = keras.Model(clip, layers.Flatten()(layers.GlobalAveragePooling3D()(layers.Rescaling(1.0)(clip)))[:, :1])
    assert vectors.content_layer(bare, find("cnn")()) == ""
    clips = rng.integers(0, 256, (2, 1, SIZE, SIZE, 3), np.uint8)
    np.testing.assert_allclose(to_numpy(vectors.WithVectors(bare, "")(clips)[1]), clips.mean(axis=(1, 2, 3)), rtol=1e-5)

    class Own(find("cnn")):
        content_layer = "features"

    assert vectors.content_layer(model_of(1)[0], Own()) == "features"


def test_distances_in_the_network_are_those_of_numpy(rng):
    model, network = model_of(2)
    path = f"frames/{network.name}/second"
    clips = rng.integers(0, 256, (60, 2, SIZE, SIZE, 3), np.uint8) // np.arange(1, 61, dtype=np.uint8)[:, None, None, None, None]
    _, *found = to_numpy(vectors.WithVectors(model, path)(clips))
    known = fit(path, Vectors(*found, np.arange(60), np.arange(60)))
    content, processing = to_numpy(vectors.WithVectors(model, path, known)(clips)[1:])
    np.testing.assert_allclose(content[:, 0], known.content.distances(found[0]), atol=1e-4)
    np.testing.assert_allclose(processing[:, 0], known.processing.distances(found[1]), atol=1e-4)
    assert content.std() > 0.1 and processing.std() > 0.1


def statistics(clips):
    return to_numpy(PixelStatistics()(clips))


def test_pixel_statistics_have_known_values(rng):
    """A ramp across the picture, one grey level a pixel, has that gradient across, none down, no noise and no change."""
    ramp = np.tile(np.arange(SIZE, dtype=np.uint8)[None, :, None], (2, SIZE, 1, 3))[None]
    found = statistics(ramp)[0]
    np.testing.assert_allclose(found[:3], np.arange(SIZE).mean() / 255, rtol=1e-5)
    deviation, chroma = np.exp(found[3:6]) - 1e-4, found[4:6]
    assert deviation[0] == pytest.approx(np.arange(SIZE).std() / 255, rel=1e-3) and (chroma < np.log(2e-4)).all()
    across, down, residual = np.exp(found[13:16]) - 1e-4
    assert across == pytest.approx(1 / 255, rel=1e-3) and abs(down) < 1e-6 and abs(residual) < 1e-5
    np.testing.assert_allclose(found[-3:], np.log(1e-4), atol=0.01)
    for width in (16, 33, 64):
        for frames in (1, 2, 5):
            clips = rng.integers(0, 256, (3, frames, 20, width, 3), np.uint8)
            shape = PixelStatistics().compute_output_shape(clips.shape)
            assert statistics(clips).shape == shape and np.isfinite(statistics(clips)).all()


def test_shares_count_exactly_what_lies_on_a_limit_in_whichever_order_colours_are_added(rng, monkeypatch):
    """Runtimes of converted models add in other orders, and many pixels lie on a limit: nearly white ones are grey."""
    dark, light, even = (rng.integers(low, high, (1, 1, 64, 64, 3), np.uint8) for low, high in ((0, 6), (250, 256), (9, 200)))
    light[..., :20, :] = light[..., :20, :1]
    even[..., 1::2, :] = even[..., ::2, :] + np.array([-7, 5, -3])  # half a grey level brighter
    for order in ((0, 1, 2), (2, 1, 0)):
        monkeypatch.setattr(keras.ops, "matmul", lambda x, y, order=order: sum(x[..., k, None] * y[k] for k in order))
        for clip in (dark, light, even):
            luma = clip[0, 0].astype(int) @ [299, 587, 114]  # in thousandths of a level
            shares = np.mean(abs(np.diff(luma)) < 500), np.mean(luma <= 2000), np.mean(luma >= 253_000)
            np.testing.assert_allclose(statistics(clip)[0, -3:], shares, atol=1e-6)


def test_processing_moves_the_statistics_that_it_should(rng):
    ramp = np.arange(SIZE, dtype=np.uint8)[None, None, None, :, None]
    smooth = np.broadcast_to(ramp + rng.integers(0, 100, (1, 3, 1, 1, 1), np.uint8), (1, 3, SIZE, SIZE, 3))
    noisy = smooth + rng.integers(0, 20, smooth.shape, np.uint8)
    still = np.repeat(smooth[:, :1], 3, axis=1)
    before, after = statistics(smooth)[0], statistics(noisy)[0]
    assert after[15] > before[15] + 1 and after[6] > before[6] + 1  # noise, and energy of high frequencies
    assert (statistics(still)[0][-3:] < before[-3:] - 1).all()
