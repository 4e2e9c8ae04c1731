"""What every registered detector keeps to; a new one is tested by being there."""

import dataclasses

import keras
import numpy as np
import pytest

from tfdetect import config, models  # noqa: F401
from tfdetect.detector import REGISTRY

SIZE = 32


def clip_shape(cls):
    return (1 if cls.sees == "frame" else 4, SIZE, SIZE, 3)


@pytest.fixture(params=sorted(REGISTRY))
def cls(request):
    return REGISTRY[request.param]


def test_fields_are_flags_with_help(cls, capsys):
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    with pytest.raises(SystemExit) as stop:
        config.parse([cls.name, "--help"], "t")
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(f"--detector.{item.name}" in text for item in dataclasses.fields(cls))
    assert config.default(cls).detector == cls(), "its recipe holds only settings that exist"


def test_scores_are_finite_float32_and_survive_saving(cls, tmp_path, rng):
    keras.utils.set_random_seed(0)
    shape = clip_shape(cls)
    model = cls().build(shape)
    clips = rng.integers(0, 256, (3, *shape), np.uint8)
    scores = model.predict(clips, verbose=0)
    assert scores.shape == (3, 1) and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert len(np.unique(scores)) == 3, "a score that does not depend on its clip"
    model.save(tmp_path / "m.keras")
    assert np.array_equal(keras.saving.load_model(tmp_path / "m.keras").predict(clips, verbose=0), scores)


def test_clips_of_a_batch_do_not_touch_each_other(cls, rng):
    shape = clip_shape(cls)
    model = cls().build(shape)
    clips = rng.integers(0, 256, (3, *shape), np.uint8)
    alone = np.concatenate([model.predict(clip[None], verbose=0) for clip in clips])
    np.testing.assert_allclose(model.predict(clips, verbose=0), alone, atol=1e-5)


def test_a_step_of_training_moves_the_loss_and_its_weights(cls, rng):
    shape = clip_shape(cls)
    keras.utils.set_random_seed(0)
    detector = cls()
    model = detector.build(shape)
    model.compile(keras.optimizers.Adam(1e-3), detector.losses())
    clips, labels = rng.integers(0, 256, (4, *shape), np.uint8), np.array([[0], [1], [0], [1]], np.float32)
    before = [np.array(value) for value in model.trainable_weights]
    losses = [model.train_on_batch(clips, labels) for _ in range(15)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert all(np.any(np.array(now) != then) for now, then in zip(model.trainable_weights, before, strict=True))


def test_mixed_precision_scores_are_still_float32(cls, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert cls().build(clip_shape(cls)).output.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
