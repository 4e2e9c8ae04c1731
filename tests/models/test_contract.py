"""The contract that every registered detector must meet; a new detector is tested as soon as it is registered."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from detectors import LARGE, clip_shape, make_detector

from tfdetect import backend, config, models
from tfdetect.artifact import Artifact
from tfdetect.detector import REGISTRY


def slow_if(condition):
    """Return the names of all detectors, those marked slow that meet the condition."""
    return [pytest.param(name, marks=pytest.mark.slow) if condition(name) else name for name in sorted(REGISTRY)]


# jax compiles each step of a large network for many seconds; on torch and TensorFlow the same code is tested every time.
@pytest.fixture(scope="module", params=slow_if(lambda name: name in LARGE and keras.backend.backend() == "jax"))
def cls(request):
    return REGISTRY[request.param]


@pytest.fixture(scope="module")
def built(cls):
    """(model, three random clips, their scores)."""
    keras.utils.set_random_seed(0)
    model = make_detector(cls).build(clip_shape(cls))
    clips = np.random.default_rng(0).integers(0, 256, (3, *clip_shape(cls)), np.uint8)
    return model, clips, model.predict(clips, verbose=0)


@pytest.fixture(scope="module")
def saved(cls, built, tmp_path_factory):
    """(folder of the model, saved; the model as loaded from there)."""
    artifact = Artifact(tmp_path_factory.mktemp(cls.name))
    built[0].save(artifact.model)
    return artifact, models.load(artifact.model)


def test_fields_are_flags_with_help(cls, capsys):
    assert dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen
    with pytest.raises(SystemExit) as stop:
        config.parse([cls.name, "--help"], "t")
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(f"--detector.{item.name}" in text for item in dataclasses.fields(cls))
    assert config.default_run(cls).detector == cls(), "its default_overrides name only existing settings"


def test_scores_are_finite_float32_and_survive_saving(built, saved):
    _, clips, scores = built
    assert scores.shape == (3, 1) and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert len(np.unique(scores)) == 3, "the score must depend on the clip"
    np.testing.assert_allclose(saved[1].predict(clips, verbose=0), scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, cls in REGISTRY.items() if cls.input_kind == "clip"])
def test_clip_detectors_accept_a_single_frame(name):
    """A still image is a clip of one frame."""
    shape = (1, *clip_shape(REGISTRY[name])[1:])
    model = make_detector(REGISTRY[name]).build(shape)
    clips = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    assert np.isfinite(model.predict(clips, verbose=0)).all()


def test_scores_do_not_depend_on_the_other_clips_of_a_batch(built):
    model, clips, scores = built
    single_scores = np.concatenate([model.predict(clip[None], verbose=0) for clip in clips])
    np.testing.assert_allclose(scores, single_scores, rtol=2e-5, atol=1e-5)


def train(cls, clips, steps):
    """Return the losses of training steps without random layers, and the paths of the weights that they left unchanged."""
    detector = make_detector(cls, dropout=0.0, mirror=False, augment=False, flips="none", model="vae")
    keras.utils.set_random_seed(0)
    model = detector.build(clip_shape(cls))
    eager = backend.is_tensorflow()  # tracing large graphs takes longer than five eager steps
    rate = 1e-5 if detector.caches_features else 1e-3  # features are only scaled when their head is fitted
    model.compile(keras.optimizers.Adam(rate), detector.losses(), run_eagerly=eager)
    clips, labels = np.concatenate([clips, clips[:1] // 2]), np.array([[0], [1], [0], [1]], np.float32)
    before = [np.array(keras.ops.convert_to_numpy(value)) for value in model.trainable_variables]
    losses = [model.train_on_batch(clips, labels) for _ in range(steps)]
    after = [keras.ops.convert_to_numpy(value) for value in model.trainable_variables]
    return losses, [variable.path for variable, old, new in zip(model.trainable_variables, before, after, strict=True)
                    if (old == new).all()]  # fmt: skip


def test_training_steps_lower_the_loss_and_change_every_weight(cls, built):
    """A large detector takes a single step; the slow test takes more."""
    losses, unchanged = train(cls, built[1], steps=1 if cls.name in LARGE else 5)
    assert not unchanged, "weights that no gradient reaches"
    assert np.isfinite(losses).all() and (cls.name in LARGE or min(losses[1:]) < losses[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_training_steps_lower_the_loss_of_large_detectors(name):
    clips = np.random.default_rng(0).integers(0, 256, (3, *clip_shape(REGISTRY[name])), np.uint8)
    losses, unchanged = train(REGISTRY[name], clips, steps=5)
    assert np.isfinite(losses).all() and min(losses[1:]) < losses[0] and not unchanged


@pytest.mark.skipif(not backend.is_tensorflow(), reason="SavedModels need TensorFlow")
@pytest.mark.parametrize("cls", slow_if(lambda name: name in LARGE), indirect=True)
def test_the_exported_model_gives_the_same_scores(cls, built, saved):
    from tfdetect.data.prepare.clip_cache import ClipSpec
    from tfdetect.serving.export import export
    from tfdetect.serving.predictor import Predictor

    (_, clips, expected), (artifact, model) = built, saved
    artifact.calibration.write_text('{"slope": 1, "intercept": 0, "threshold": 0.5}')
    export(model, json.loads(artifact.calibration.read_text()), make_detector(cls), artifact.saved_model)
    scores, _ = Predictor(artifact, ClipSpec(*clip_shape(cls)[:2]), make_detector(cls)).predict_clips(clips)
    np.testing.assert_allclose(scores, expected[:, 0], rtol=2e-5, atol=1e-5)


def test_scores_are_float32_in_mixed_precision(cls):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert make_detector(cls).build(clip_shape(cls)).output.dtype == "float32"
    finally:
        keras.config.set_dtype_policy("float32")
