"""What every custom layer, loss and metric must support: shapes, dtype policies, configs, saving, batch sizes.

The classes are found by scanning `tfdetect.models.layers`. A new one needs a case in `LAYERS`, `LOSSES` or `METRICS`, or
`test_every_class_has_a_case` fails.
"""

import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import ops

from tfdetect import models
from tfdetect.models import layers
from tfdetect.models.layers import autoencoder, block_dct, common, heads, noise, one_class_scores, pixel_statistics, resample

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


@dataclass(frozen=True)
class Case:
    """How to create a layer, and inputs that it accepts."""

    make: Callable[[], keras.layers.Layer]
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each input, without the batch axis."""
    batch_sizes: tuple[int, ...] = (1, 3)
    scale: float = 1.0
    """Standard deviation of the inputs."""
    output_dtype: str | None = "float32"
    """dtype of the first output under every policy; None for the policy's compute dtype."""

    def inputs(self, batch_size):
        rng = np.random.default_rng(0)
        arrays = [rng.normal(0, self.scale, (batch_size, *shape)).astype(np.float32) for shape in self.shapes]
        return arrays if len(arrays) > 1 else arrays[0]

    def symbolic_inputs(self):
        tensors = [keras.Input(shape) for shape in self.shapes]
        return tensors if len(tensors) > 1 else tensors[0]


def linear_decoder():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(6, dtype="float32")(inputs), name="decoder")


IMAGES, LATENT = ((8, 8, 3), (8, 8, 3)), ((4,), (4,))
LAYERS = {
    "PerFrame": Case(lambda: common.PerFrame(keras.layers.Dense(4)), ((3, 6),), output_dtype=None),
    "FrameDifferences": Case(common.FrameDifferences, ((4, 5, 5, 3),), output_dtype=None),
    "RandomHorizontalFlip": Case(lambda: common.RandomHorizontalFlip(seed=1), ((2, 6, 6, 3),), output_dtype=None),
    "AlignedCrop": Case(lambda: common.AlignedCrop(16, seed=1), ((32, 24, 3),), output_dtype=None),
    "FlipTTA": Case(common.FlipTTA, ((6, 6, 3),), output_dtype=None),
    "FlipTTAMean": Case(common.FlipTTAMean, ((6,),), batch_sizes=(2, 6), output_dtype=None),
    "LogVariancePooling": Case(common.LogVariancePooling, ((6, 6, 3),)),
    "PillowResize": Case(lambda: resample.PillowResize(8, 12, "bilinear"), ((16, 16, 3),), scale=100.0),
    "BlockDCT": Case(lambda: block_dct.BlockDCT(5.0, 4, False), ((16, 24, 3),)),
    "BlockDCTEnergies": Case(lambda: block_dct.BlockDCTEnergies(2), ((32, 48, 3),)),
    "BranchDropout": Case(lambda: block_dct.BranchDropout(0.7, seed=1), ((3,), (2,)), output_dtype=None),
    "RunningMeanSubtraction": Case(lambda: block_dct.RunningMeanSubtraction(0.5), ((5,),), output_dtype=None),
    "GaussianSampling": Case(lambda: autoencoder.GaussianSampling(seed=1), LATENT),
    "VAELoss": Case(lambda: autoencoder.VAELoss(0.5, 3, 0.1), (*IMAGES, *LATENT)),
    "LatentMatchingLoss": Case(autoencoder.LatentMatchingLoss, LATENT),
    "StopGradient": Case(autoencoder.StopGradient, ((5,),)),
    "RMSE": Case(autoencoder.RMSE, IMAGES),
    "KLDivergence": Case(autoencoder.KLDivergence, LATENT),
    "NegativeELBO": Case(autoencoder.NegativeELBO, (*IMAGES, *LATENT)),
    "PerceptualDistance": Case(autoencoder.PerceptualDistance, ((4, 4, 3), (2, 2, 5), (4, 4, 3), (2, 2, 5))),
    "ErrorSpectrum": Case(lambda: autoencoder.ErrorSpectrum(4), IMAGES),
    "VectorNorm": Case(autoencoder.VectorNorm, ((5,),)),
    "LikelihoodRegret": Case(lambda: autoencoder.LikelihoodRegret(linear_decoder(), 2, 0.1), ((6,), (4,), (4,))),
    "KNNDistance": Case(lambda: one_class_scores.KNNDistance(k=2, num_rows=4), ((5,),)),
    "SubspaceResidual": Case(lambda: one_class_scores.SubspaceResidual(num_components=2), ((5,),)),
    "GaussianMixtureNLL": Case(lambda: one_class_scores.GaussianMixtureNLL(num_components=3), ((5,),)),
    "ResidualStatistics": Case(noise.ResidualStatistics, ((16, 24, 3),), scale=100.0),
    "RadialSpectrum": Case(lambda: noise.RadialSpectrum(5), ((16, 24, 3),), scale=100.0),
    "PixelStatistics": Case(pixel_statistics.PixelStatistics, ((3, 16, 24, 3),), scale=100.0),
    "SetScaling": Case(lambda: heads.SetScaling(["a", "b"], [2, 3]), ((5,),)),
    "SVMDecisionFunction": Case(lambda: heads.SVMDecisionFunction(3, "rbf", 0.5), ((5,),)),
    "KNNMargin": Case(lambda: heads.KNNMargin(3, 4, 2), ((5,),)),
    "ClosestText": Case(lambda: heads.ClosestText(["a face", "a cat", "a street"]), ((5,),)),
}
CROSS_ENTROPY = keras.losses.BinaryCrossentropy(from_logits=True)
LOSSES = {  # how to create it, and the numbers of columns of y_true and y_pred
    "DetectionAndAttributionLoss": (lambda: common.DetectionAndAttributionLoss(CROSS_ENTROPY), 2, 3),
    "FocalLoss": (lambda: common.FocalLoss(CROSS_ENTROPY, 1.5), 1, 1),
    "TripletLoss": (lambda: heads.TripletLoss(0.3, "hard"), 1, 4),
}
METRICS = {"ScoreAUC": common.ScoreAUC}


def scan(base):
    """Names of the classes derived from `base` in the modules of `tfdetect.models.layers`, without those that others extend."""
    modules = [importlib.import_module(f"{layers.__name__}.{module.name}") for module in pkgutil.iter_modules(layers.__path__)]
    classes = [cls for module in modules for cls in vars(module).values()
               if inspect.isclass(cls) and issubclass(cls, base) and cls.__module__ == module.__name__]  # fmt: skip
    return {cls.__name__ for cls in classes if not any(cls in other.__mro__[1:] for other in classes)}


@pytest.mark.parametrize(("base", "cases"), [
    (keras.layers.Layer, LAYERS), (keras.losses.Loss, LOSSES), (keras.metrics.Metric, METRICS)])  # fmt: skip
def test_every_class_has_a_case(base, cases):
    assert scan(base) == set(cases)


@pytest.fixture(autouse=True)
def restore_policy():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(params=LAYERS)
def case(request):
    keras.utils.set_random_seed(0)
    return LAYERS[request.param]


def fill_weights(layer):
    """Give every weight a value that loading must restore, positive because some are variances."""
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        if "seed" not in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def dtypes(outputs):
    return [keras.backend.standardize_dtype(output.dtype) for output in keras.tree.flatten(outputs)]


def numpy_outputs(outputs):
    return [ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]


def assert_finite(layer, case, outputs):
    assert dtypes(outputs)[0] == (case.output_dtype or layer.compute_dtype)
    assert all(np.isfinite(ops.convert_to_numpy(ops.cast(output, "float32"))).all() for output in keras.tree.flatten(outputs))


def assert_compatible(shape, expected):
    """None in `expected` stands for any size."""
    assert len(shape) == len(expected) and all(wanted in (None, size) for size, wanted in zip(shape, expected, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_outputs_have_the_announced_shapes_and_dtypes(case, policy):
    keras.config.set_dtype_policy(policy)
    layer = case.make()
    announced = keras.tree.flatten(layer(case.symbolic_inputs()))
    for batch_size in case.batch_sizes if policy == "float32" else case.batch_sizes[-1:]:
        inputs = case.inputs(batch_size)
        outputs = layer(inputs)
        assert dtypes(outputs) == dtypes(announced)
        assert_finite(layer, case, outputs)
        shapes = [tuple(output.shape) for output in keras.tree.flatten(outputs)]
        for shape, tensor in zip(shapes, announced, strict=True):
            assert_compatible(shape, tensor.shape)
        input_shapes = [array.shape for array in inputs] if isinstance(inputs, list) else inputs.shape
        computed = layer.compute_output_shape(input_shapes)
        computed = computed if isinstance(computed[0], tuple | list) else [computed]
        for shape, expected in zip(shapes, computed, strict=True):
            assert_compatible(shape, expected)
    if "training" in inspect.signature(layer.call).parameters:
        assert_finite(layer, case, layer(inputs, training=True))


def test_configs_round_trip(case):
    layer = case.make()
    config = json.dumps(keras.saving.serialize_keras_object(layer), sort_keys=True)
    again = keras.saving.deserialize_keras_object(json.loads(config))
    assert type(again) is type(layer)
    assert json.dumps(keras.saving.serialize_keras_object(again), sort_keys=True) == config
    arguments = set(inspect.signature(type(layer).__init__).parameters) - {"self", "args", "kwargs", "options"}
    if isinstance(layer, one_class_scores.FittedScore):
        arguments -= {*layer.initial_values, "weights"}  # saved as weights of the model instead
    assert arguments <= set(layer.get_config()), "constructor arguments that the config lacks"


def test_saved_models_give_equal_outputs(case, tmp_path):
    inputs = case.symbolic_inputs()
    model = keras.Model(inputs, case.make()(inputs))
    fill_weights(model)
    model.save(tmp_path / "m.keras")
    again = models.load(tmp_path / "m.keras")
    for batch_size in case.batch_sizes:
        arrays = case.inputs(batch_size)
        expected = numpy_outputs(model.predict_on_batch(arrays))
        for output, value in zip(numpy_outputs(again.predict_on_batch(arrays)), expected, strict=True):
            np.testing.assert_allclose(output, value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("policy", POLICIES)
def test_losses_are_finite_and_survive_saving(name, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    make, label_columns, output_columns = LOSSES[name]
    loss = make()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(output_columns, dtype="float32")(inputs))
    model.compile("sgd", loss)
    for batch_size in (1, 4):
        x = np.random.default_rng(0).normal(size=(batch_size, 4)).astype(np.float32)
        y = np.zeros((batch_size, label_columns), np.float32)
        y[::2] = 1
        assert loss.call(ops.array(y), ops.convert_to_tensor(model(x))).shape == (batch_size,)
        assert np.isfinite(model.train_on_batch(x, y))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.loss) is type(loss) and again.loss.get_config() == loss.get_config()
    assert again.test_on_batch(x, y) == pytest.approx(model.test_on_batch(x, y), rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_accumulate_over_batches_and_survive_saving(name, rng):
    metric = METRICS[name]()
    labels, scores = rng.integers(0, 2, (40, 2)).astype(np.float32), rng.normal(size=(40, 3)).astype(np.float32)
    metric.update_state(labels, scores)
    expected = float(metric.result())
    metric.reset_state()
    for start in (0, 10):
        metric.update_state(labels[start : start + 10 + 2 * start], scores[start : start + 10 + 2 * start])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(again) is type(metric) and again.get_config() == metric.get_config()
