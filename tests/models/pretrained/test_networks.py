"""Networks by name: which library, and the normalisation that its weights expect."""

import keras
import numpy as np
import pytest

from tfdetect.errors import UserError
from tfdetect.models.pretrained import networks
from tfdetect.models.pretrained.networks import Network, find


@pytest.mark.parametrize(("name", "library", "there"), [
    ("xception", "keras.applications", "xception"), ("EfficientNet-B4", "keras.applications", "efficientnetb4"),
    ("convnext_tiny", "keras.applications", "convnexttiny"), ("mobilenet_v3_small", "keras.applications", "mobilenetv3small"),
    ("resnet50", "keras.applications", "resnet50"), ("keras_cv:resnet50", "keras-cv", "resnet50"),
    ("resnet18", "keras-cv", "resnet18"), ("efficientnet_lite0", "keras-cv", "efficientnetliteb0"),
    ("efficientnet_lite0_ra_imagenet", "keras-hub", "efficientnet_lite0_ra_imagenet"),
    ("vit_base", "keras-hub", "vit_base_patch16_224_imagenet"), ("dinov2_small", "keras-hub", "dinov2_small"),
])  # fmt: skip
def test_a_name_is_looked_up_in_the_libraries_in_order(name, library, there):
    found = find(name)
    assert (found.library, found.name) == (library, there)


@pytest.mark.parametrize(("name", "message"), [
    ("xcepton", "Perhaps you meant xception"), ("keras:vit_base_patch16", "no network of this name"),
    ("timm:resnet50", "no library 'timm'; expected keras, keras_cv, keras_hub"),
])  # fmt: skip
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        find(name)


@pytest.mark.parametrize("module", ["xception", "resnet", "densenet", "efficientnet"])
def test_images_are_normalised_as_the_library_does(module, rng):
    preprocess = getattr(keras.applications, module).preprocess_input
    images, inputs = rng.uniform(0, 255, (2, 4, 4, 3)).astype(np.float32), keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Identity()(networks._normalise_as(preprocess, inputs)))
    np.testing.assert_allclose(model.predict(images, verbose=0), preprocess(images.copy()), rtol=1e-5, atol=1e-4)


def test_without_downloaded_weights_efficientnet_normalises_by_the_statistics_of_imagenet(rng, tmp_path):
    """Keras leaves the mean at 0 and the variance at 1, since both are among the downloaded weights."""
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Normalization()])
    networks._set_normalisation(model)
    model.save(tmp_path / "m.keras")
    images = rng.uniform(0, 255, (2, 4, 4, 3)).astype(np.float32)
    expected = (images / 255 - networks.IMAGENET_MEAN) / networks.IMAGENET_STD
    for each in (model, keras.saving.load_model(tmp_path / "m.keras")):
        np.testing.assert_allclose(each.predict(images, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_efficientnet_lite_has_the_published_number_of_parameters():
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, find("efficientnet_lite0").build(inputs, imagenet=False))
    assert model.count_params() == 3_413_024 and model.output_shape == (None, 2, 2, 1280)
    with pytest.raises(UserError, match="no ImageNet weights.*--detector.weights FILE.*efficientnet_lite0_ra_imagenet"):
        find("efficientnet_lite0").build(inputs, imagenet=True)


@pytest.mark.parametrize(("error", "message"), [
    (Exception("URL fetch failure on https://x/w.h5: None -- no route"), "keras-cv could not download what net needs .URL fetch.*"
                                                                         "only networks of keras.applications and"),
    (ValueError("Input size must be at least 71x71"), "net .keras-cv. does not take images of 32 x 32 pixels: Input size"),
])  # fmt: skip
def test_what_a_library_refuses_is_one_sentence(error, message):
    def fail(images, imagenet):
        raise error

    with pytest.raises(UserError, match=message):
        Network("keras-cv", "net", fail).build(keras.Input((32, 32, 3)), imagenet=True)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A folder with a tiny vision transformer, as keras-hub saves it, which takes images of 16 pixels in -1..1."""
    import keras_hub

    folder = str(tmp_path_factory.mktemp("preset"))
    keras_hub.models.ViTBackbone(image_shape=(16, 16, 3), patch_size=8, num_layers=2, num_heads=2, hidden_dim=8,
                                 mlp_dim=16).save_to_preset(folder)  # fmt: skip
    keras_hub.layers.ViTImageConverter(image_size=(16, 16), scale=1 / 127.5, offset=-1).save_to_preset(folder)
    return folder


def test_a_folder_of_keras_hub_is_resized_normalised_pooled_and_reloadable(preset, rng, tmp_path):
    import keras_hub

    images, inputs = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.float32), keras.Input((32, 32, 3))
    model = keras.Model(inputs, find(preset).build(inputs, imagenet=True))
    model.save(tmp_path / "m.keras")
    small = model.layers[-1].get_layer("resize")(images)
    tokens = keras_hub.models.Backbone.from_preset(preset).predict(keras.ops.convert_to_numpy(small) / 127.5 - 1, verbose=0)
    for each in (model, keras.saving.load_model(tmp_path / "m.keras")):
        np.testing.assert_allclose(each.predict(images, verbose=0), tokens[:, 0], rtol=1e-4, atol=1e-5)
