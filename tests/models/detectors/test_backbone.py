"""`backbone`: stored features for the head alone, phases for fine-tuning, and weights that are checked before any other work."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tfdetect import cli, models
from tfdetect.errors import UserError
from tfdetect.models.detectors.backbone import Backbone


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A .keras file with weights of the network tiny."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.keras"
    Backbone(network="tiny", weights="none").build((1, 32, 32, 3)).save(path)
    return path


def test_weights_of_another_network_are_refused_before_any_other_work(weights):
    assert "without its classifier: score" in Backbone(network="tiny", weights=weights).require().replace("backbone/", "")
    assert Backbone(network="tiny", weights="none").require() == ""
    with pytest.raises(UserError, match="Perhaps you meant xception"):
        Backbone(network="xceptoin", weights="none").require()
    with pytest.raises(UserError, match="does not hold weights for this detector"):
        Backbone(network="mobilenet", weights=weights).require()
    with pytest.raises(UserError, match="is not a file; expected imagenet, none"):
        Backbone(network="tiny", weights=Path("missing.pth")).require()


def test_the_weights_of_the_file_are_those_of_the_model(weights):
    source, model = models.load(weights), Backbone(network="tiny", weights=weights).build((1, 48, 48, 3))
    for name in ("conv1", "norm1", "conv2", "conv3"):
        assert all(map(np.array_equal, source.get_layer(name).get_weights(), model.get_layer(name).get_weights()))


@pytest.mark.parametrize("options", [{"unfreeze_from": "all"}, {"weights": "none"}, {"crop": 16}, {"attribute": "source"}])
def test_heads_other_than_linear_need_a_frozen_pretrained_backbone(options):
    assert not Backbone(**options).caches_features and Backbone().caches_features
    with pytest.raises(UserError, match="need stored features of a pretrained, frozen backbone"):
        Backbone(head="svm", **options)


def test_fine_tuning_trains_from_a_layer_on_except_normalisation(weights):
    detector = Backbone(network="tiny", weights=weights, unfreeze_from="conv2", head_epochs=1)
    model = detector.build((1, 32, 32, 3))
    for phase, names in zip(detector.phases(), [{"score"}, {"conv2", "conv3", "score"}], strict=True):
        phase.prepare(model)
        assert {weight.path.split("/")[0] for weight in model.trainable_weights} == names


def test_images_that_are_too_small_for_the_network_are_refused():
    with pytest.raises(UserError, match=r"xception \(keras.applications\) does not take images of 32 x 32 pixels.*--data.size"):
        Backbone(network="xception", weights="none").build((1, 32, 32, 3))


@pytest.mark.usefixtures("light")
def test_a_head_on_stored_features_is_trained_exported_and_equal(weights, images, tmp_path):
    from tfdetect.artifact import Artifact
    from tfdetect.evaluation import predictions

    flags = ["--detector.network", "tiny", "--detector.weights", weights, "--detector.head", "logistic", "--data.path", images,
             "--data.size", "32", "--data.cache_dir", tmp_path / "c", "--out", tmp_path, "--name", "r"]  # fmt: skip
    assert cli.main(["train", "backbone", *map(str, flags)]) == 0
    artifact = Artifact(tmp_path / "r")
    assert [*(tmp_path / "c" / "features").iterdir()] and json.loads(artifact.metrics.read_text())["test"]["n"] == 8
    rows = predictions.read(artifact.predictions)
    from PIL import Image

    clips = np.stack([np.asarray(Image.open(path))[None] for path in rows["path"]])
    np.testing.assert_allclose(models.load(artifact.model).predict(clips, verbose=0)[:, 0], rows["score"], atol=1e-4, rtol=1e-4)
