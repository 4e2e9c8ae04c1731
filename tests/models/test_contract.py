"""What every registered detector keeps to; a new one is tested by being there."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from detectors import LARGE, clip_shape, make_detector

from tfdetect import backend, config, models
from tfdetect.detector import REGISTRY


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def cls(request):
    return REGISTRY[request.param]


@pytest.fixture(scope="module")
def built(cls):
    """(model, three clips of noise, their scores)."""
    keras.utils.set_random_seed(0)
    model = make_detector(cls).build(clip_shape(cls))
    clips = np.random.default_rng(0).integers(0, 256, (3, *clip_shape(cls)), np.uint8)
    return model, clips, model.predict(clips, verbose=0)


def test_fields_are_flags_with_help(cls, capsys):
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    with pytest.raises(SystemExit) as stop:
        config.parse([cls.name, "--help"], "t")
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(f"--detector.{item.name}" in text for item in dataclasses.fields(cls))
    assert config.default_run(cls).detector == cls(), "its recipe holds only settings that exist"


def test_scores_are_finite_float32_and_survive_saving(built, tmp_path):
    model, clips, scores = built
    assert scores.shape == (3, 1) and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert len(np.unique(scores)) == 3, "a score that does not depend on its clip"
    model.save(tmp_path / "m.keras")
    again = models.load(tmp_path / "m.keras").predict(clips, verbose=0)
    np.testing.assert_allclose(again, scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, cls in REGISTRY.items() if cls.input_kind == "clip"])
def test_clips_of_one_frame(name):
    """A still image is a clip of one frame."""
    shape = (1, *clip_shape(REGISTRY[name])[1:])
    model = make_detector(REGISTRY[name]).build(shape)
    clips = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    assert np.isfinite(model.predict(clips, verbose=0)).all()


def test_clips_of_a_batch_do_not_touch_each_other(built):
    model, clips, scores = built
    alone = np.concatenate([model.predict(clip[None], verbose=0) for clip in clips])
    np.testing.assert_allclose(scores, alone, rtol=2e-5, atol=1e-5)


def test_a_step_of_training_moves_the_loss_and_its_weights(cls, built):
    """Without chance in its layers, so that the loss tells what was learnt."""
    detector, clips = make_detector(cls, dropout=0.0, mirror=False, augment=False, flips="none", model="vae"), built[1]
    keras.utils.set_random_seed(0)
    model = detector.build(clip_shape(cls))
    eager = backend.is_tensorflow()  # whose graphs of big nets take longer to make than five steps do
    model.compile(keras.optimizers.Adam(1e-3), detector.losses(), run_eagerly=eager)
    clips, labels = np.concatenate([clips, clips[:1] // 2]), np.array([[0], [1], [0], [1]], np.float32)
    before = [np.array(keras.ops.convert_to_numpy(value)) for value in model.trainable_variables]
    losses = [model.train_on_batch(clips, labels) for _ in range(5)]
    assert np.isfinite(losses).all() and min(losses[1:]) < losses[0]
    after = [keras.ops.convert_to_numpy(value) for value in model.trainable_variables]
    still = [value.path for value, then, now in zip(model.trainable_variables, before, after, strict=True) if (then == now).all()]
    assert not still, "weights that no gradient reaches"


@pytest.mark.skipif(not backend.tensorflow(), reason="SavedModels are TensorFlow's")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in REGISTRY])
def test_the_exported_model_gives_the_scores_of_the_live_one(name, tmp_path):
    from tfdetect.artifact import Artifact
    from tfdetect.serving.export import export
    from tfdetect.serving.predictor import Predictor

    cls, artifact = REGISTRY[name], Artifact(tmp_path)
    keras.utils.set_random_seed(0)
    model = make_detector(cls).build(clip_shape(cls))
    clips = np.random.default_rng(0).integers(0, 256, (3, *clip_shape(cls)), np.uint8)
    model.save(artifact.model)
    artifact.calibration.write_text('{"slope": 1, "intercept": 0, "threshold": 0.5}')
    export(models.load(artifact.model), json.loads(artifact.calibration.read_text()), make_detector(cls), artifact.saved_model)
    found, _ = Predictor(artifact, None, make_detector(cls)).judge(clips)
    np.testing.assert_allclose(found, model.predict(clips, verbose=0)[:, 0], rtol=2e-5, atol=1e-5)


def test_mixed_precision_scores_are_still_float32(cls):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert make_detector(cls).build(clip_shape(cls)).output.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
