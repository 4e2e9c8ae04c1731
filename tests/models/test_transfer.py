"""Transfer detectors: parameter counts, what each phase trains, and attribution."""

import keras
import numpy as np
import pytest

from tfdetect import config
from tfdetect.models.detectors.inception import Inception
from tfdetect.models.detectors.resnet50 import ResNet50
from tfdetect.models.detectors.squeezenet import SqueezeNet
from tfdetect.models.layers import common
from tfdetect.settings import Train
from tfdetect.training import fit


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def squeezenet_from_file(tmp_path, **options):
    """Return a SqueezeNet, and a detector that reads its weights from an HDF5 file in the published format."""
    import h5py

    source = SqueezeNet(weights="none").build((1, 32, 32, 3))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        saved = [layer for layer in source.layers if layer.weights and layer.name.startswith(("conv", "fire"))]
        file.attrs["layer_names"] = [layer.name.replace("_", "/", 1).encode() for layer in saved]
        for layer in saved:
            group = file.create_group(layer.name.replace("_", "/", 1))
            group.attrs["weight_names"] = [b"w", b"b"]
            group["w"], group["b"] = layer.get_weights()
    return source, SqueezeNet(weights=tmp_path / "w.h5", **options)


def test_published_parameter_counts_without_top():
    inception, squeeze = Inception(weights="none").build((1, 75, 75, 3)), SqueezeNet(weights="none").build((1, 64, 64, 3))
    assert inception.count_params() == 21_802_784 + 2048 + 1
    assert squeeze.count_params() == 722_496 + 5 * 5248 + 1  # plus BatchNormalization of the statistics and the score


def test_the_published_head_of_inception():
    """The published head has two outputs; one logit is equivalent and saves 1025 parameters. 34,432 are never trained."""
    model = Inception(weights="none", dense=1024).build((1, 75, 75, 3))
    assert model.count_params() == 23_903_010 - 1025
    assert count(model.non_trainable_weights) == 34_432


def test_weights_are_read_from_a_file(tmp_path):
    source, detector = squeezenet_from_file(tmp_path)
    model = detector.build((1, 32, 32, 3))
    for layer in source.layers:
        if layer.name.startswith(("conv", "fire")) and layer.weights:
            assert np.array_equal(layer.get_weights()[0], model.get_layer(layer.name).get_weights()[0])


def test_the_first_phase_trains_the_head_and_the_second_from_a_layer_on(tmp_path):
    detector = squeezenet_from_file(tmp_path, unfreeze_from="fire9_squeeze1x1", head_epochs=2)[1]
    model = detector.build((1, 32, 32, 3))
    (first, middle, head), (second, last, fine_tuning) = fit.phase_schedule(detector.phases(), 5)
    assert (first, middle, second, last) == (0, 2, 2, 5) and fine_tuning.learning_rate_factor == 0.1 * head.learning_rate_factor
    head.prepare(model)
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"features", "score"}
    fine_tuning.prepare(model)
    names = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert names == {"fire9_squeeze1x1", "fire9_expand1x1", "fire9_expand3x3", "features", "score"}


def test_batch_normalisation_of_a_pretrained_backbone_stays_frozen():
    model = ResNet50(weights="none").build((1, 32, 32, 3))
    ResNet50().set_trainable(model, "all")
    assert not any(layer.trainable for layer in common.batch_norm_layers(model))
    assert sum(layer.trainable for layer in model.layers if isinstance(layer, keras.layers.Conv2D)) == 53


@pytest.mark.parametrize(("start", "count"), [("", 0), ("all", 5), ("2", 2), ("c", 3)])
def test_the_start_of_unfreezing_selects_layers(start, count):
    backbone = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2, name=name) for name in "abcde")])
    assert len(SqueezeNet().layer_names_from(backbone, start)) == count


@pytest.mark.parametrize("sides", [True, False])
def test_with_sides_an_image_and_its_mirror_image_score_alike(sides, rng):
    model = SqueezeNet(weights="none", sides=sides).build((1, 48, 48, 3))
    clips = rng.integers(0, 256, (2, 1, 48, 48, 3), np.uint8)
    scores, mirrored_scores = (model.predict(x, verbose=0) for x in (clips, clips[:, :, :, ::-1]))
    assert np.allclose(scores, mirrored_scores, rtol=1e-4, atol=1e-6) == sides


def test_an_unknown_layer_is_refused_with_similar_names():
    with pytest.raises(ValueError, match="no such layer.*fire9_expand"):
        SqueezeNet(weights="none", unfreeze_from="fire9_expnd").build((1, 32, 32, 3))


def test_too_small_images_are_refused_when_flags_are_parsed(capsys):
    with pytest.raises(SystemExit) as stop:
        config.parse(["inception", "--data.size", "64"], "t")
    assert stop.value.code == 2 and "inception needs --data.size 75 or more, got 64" in capsys.readouterr().err


def test_the_attribution_loss_counts_only_fakes_with_a_known_source():
    loss = common.DetectionAndAttributionLoss(keras.losses.BinaryCrossentropy(from_logits=True))
    scores = np.array([[0.5, 3, -1], [0.5, 3, -1], [0.5, 3, -1]], np.float32)
    labels = np.array([[0, -1], [1, 0], [1, -1]], np.float32)
    values = keras.ops.convert_to_numpy(loss.call(keras.ops.array(labels), keras.ops.array(scores)))
    detection = np.logaddexp(0, 0.5) - labels[:, 0] * 0.5
    np.testing.assert_allclose(values, detection + np.array([0, np.logaddexp(0, -4), 0]), rtol=1e-5)


def test_one_model_learns_detection_and_attribution():
    detector = SqueezeNet(weights="none", attribute="source", classes=("gan", "swap"))
    model = detector.build((1, 32, 32, 3))
    assert model.output_shape == (None, 3)
    fit.compile_phase(model, detector, detector.phases()[0], Train(), 1, 10)
    clips = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32, 3), np.uint8)
    labels = np.array([[0, -1], [1, 0], [0, -1], [1, 1]], np.float32)
    losses = [model.train_on_batch(clips, labels, np.ones(4, np.float32)) for _ in range(10)]
    assert losses[-1] < losses[0]
