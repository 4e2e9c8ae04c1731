"""Shared layers, and `cnn_lstm`, which is made of them."""

import keras
import numpy as np
import pytest

from tfdetect.models.detectors.cnn import Cnn
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.layers import common


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_per_frame_applies_the_layer_to_each_frame(batch, rng):
    """The number of frames (3) differs from the batch size, which is unknown when the model is built."""
    inputs = keras.Input((3, 6))
    inner = keras.layers.Dense(4)
    model = keras.Model(inputs, common.PerFrame(inner)(inputs))
    x = rng.normal(size=(batch, 3, 6)).astype(np.float32)
    expected = np.stack([keras.ops.convert_to_numpy(inner(x[:, frame])) for frame in range(3)], axis=1)
    assert model.output_shape == (None, 3, 4)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_per_frame_needs_a_known_number_of_frames():
    with pytest.raises(ValueError, match="known number of frames"):
        common.PerFrame(keras.layers.Dense(4))(keras.Input((None, 6)))


def test_random_flip_flips_whole_clips_in_training_only(rng):
    clips = rng.normal(size=(64, 3, 4, 5, 3)).astype(np.float32)
    flip = common.RandomHorizontalFlip(seed=1)
    assert np.array_equal(flip(clips, training=False), clips)
    out = keras.ops.convert_to_numpy(flip(clips, training=True))
    unchanged, flipped = ((out == other).all(axis=(1, 2, 3, 4)) for other in (clips, clips[:, :, :, ::-1]))
    assert (unchanged ^ flipped).all() and 16 < flipped.sum() < 48


def test_cnn_lstm_has_the_published_number_of_parameters():
    assert CnnLstm().build((16, 64, 64, 3)).count_params() == 552_609


def test_cnn_lstm_starts_from_a_trained_image_detector(tmp_path, rng):
    keras.utils.set_random_seed(0)
    Cnn(width=4).build((1, 32, 32, 3)).save(tmp_path / "cnn.keras")
    path = str(tmp_path / "cnn.keras")
    trainable, frozen = (CnnLstm(frame_model=path, freeze=freeze).build((4, 32, 32, 3)) for freeze in (False, True))
    trained = keras.saving.load_model(path)
    kernels = [weight for weight in trainable.weights if weight.shape == (3, 3, 3, 4)]
    first = next(weight for weight in trained.weights if weight.shape == (3, 3, 3, 4))
    assert len(kernels) == 1 and np.array_equal(kernels[0], first)
    assert len(trainable.trainable_weights) > len(frozen.trainable_weights) == 7, "LSTM (3), dense (2), score (2)"
    frozen.compile("adam", CnnLstm().losses())
    before = [np.array(weight) for weight in frozen.non_trainable_weights]
    frozen.fit(rng.integers(0, 256, (4, 4, 32, 32, 3), np.uint8), np.array([0, 1, 0, 1], np.float32), verbose=0)
    weights = zip(frozen.non_trainable_weights, before, strict=True)
    assert not any(np.any(np.array(weight) != old) for weight, old in weights if "seed" not in weight.path)
    with pytest.raises(ValueError, match="give an image detector and --data.size 32"):
        CnnLstm(frame_model=path).build((4, 64, 64, 3))


@pytest.mark.parametrize("kind", ["lstm", "gru", "bidirectional", "convolution", "attention"])
def test_every_temporal_network_but_attention_depends_on_the_order_of_frames(kind, rng):
    keras.utils.set_random_seed(0)
    model = CnnLstm(temporal=kind).build((6, 32, 32, 3))
    clips = rng.integers(0, 256, (2, 6, 32, 32, 3), np.uint8)
    scores, reversed_scores = (model.predict(x, verbose=0) for x in (clips, clips[:, ::-1]))
    assert scores.shape == (2, 1)
    assert np.allclose(scores, reversed_scores, atol=1e-5) == (kind == "attention")


@pytest.mark.parametrize("kind", ["lstm", "gru", "bidirectional"])
def test_recurrent_layers_compute_in_float32_whatever_the_precision_is(kind):
    """On a GPU, JAX's cuDNN layers take no bfloat16 and end training with 'Unknown output type bfloat16'."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = CnnLstm(temporal=kind).build((6, 32, 32, 3))
    finally:
        keras.config.set_dtype_policy("float32")
    recurrent = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.LSTM | keras.layers.GRU)]
    assert recurrent and {layer.compute_dtype for layer in recurrent} == {"float32"}
    assert model.get_layer("features").compute_dtype == "bfloat16"


def test_frame_differences_subtract_the_previous_frame(rng):
    clips = rng.normal(size=(2, 4, 3, 3, 3)).astype(np.float32)
    out = keras.ops.convert_to_numpy(common.FrameDifferences()(clips))
    assert not out[:, 0].any()
    np.testing.assert_allclose(out[:, 1:], np.diff(clips, axis=1), rtol=1e-6)


def test_log_variance_pooling_is_the_log_of_the_variance_per_channel(rng):
    maps = (rng.normal(size=(2, 40, 40, 3)) * [0.5, 1, 3] + [9, 0, 0]).astype(np.float32)
    pooled = keras.ops.convert_to_numpy(common.LogVariancePooling()(maps))
    np.testing.assert_allclose(pooled, np.log(maps.var(axis=(1, 2)) + 1e-3), rtol=1e-3, atol=1e-3)


def test_batch_norms_are_found_at_any_depth():
    inner = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 1), keras.layers.BatchNormalization()])
    inputs = keras.Input((3, 4, 4, 3))
    model = keras.Model(inputs, keras.layers.BatchNormalization()(common.PerFrame(inner)(inputs)))
    assert len(list(common.batch_norm_layers(model))) == 2
