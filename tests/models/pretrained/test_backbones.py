"""Presets: finding and refusing them, vision models, text encoders, adapters, saving and export."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from tfdetect import backend, models
from tfdetect.models.pretrained import backbones, fast_blocks
from tfdetect.models.pretrained.backbone import Backbone, Preprocessing

ROOT = Path(__file__).parents[3]
WIDTH = {"projected": 16, "pooled": 32, "penultimate": 32}


@pytest.fixture(scope="module")
def tiny():
    return backbones.load("tiny")


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (3, 48, 48, 3)).astype(np.float32)


def predict(model, images):
    return model.predict(images, verbose=0)


def test_tiny_is_reproducible_on_every_backend(tiny, images):
    """The expected values were computed with TensorFlow."""
    model = backbones.vision_model(tiny, 48, "projected")
    assert model.name == "backbone" and model.input_shape == (None, 48, 48, 3)
    np.testing.assert_allclose(predict(model, images)[0, :4], [-0.6596, 0.18275, 0.37403, -0.05499], atol=1e-4)
    reloaded = backbones.load("tiny")
    assert (predict(backbones.vision_model(reloaded, 48, "projected"), images) == predict(model, images)).all()
    assert backbones.is_random("tiny") and not backbones.is_random("clip_vit_base_patch32")


@pytest.mark.parametrize("features", WIDTH)
def test_features_survive_saving(features, tiny, images, tmp_path):
    model = backbones.vision_model(tiny, 48, features)
    before = predict(model, images)
    assert before.shape == (3, WIDTH[features]) and len(np.unique(before)) == before.size
    model.save(tmp_path / "m.keras")
    loaded = models.load(tmp_path / "m.keras")
    np.testing.assert_allclose(predict(loaded, images), before, atol=1e-6)
    names, loaded_names = ([block.name for block in backbones.transformer_blocks(part)] for part in (model, loaded))
    assert loaded_names == names
    assert len(backbones.transformer_blocks(model)) == (1 if features == "penultimate" else 2), "unused blocks are left out"
    assert not any("text" in weight.path for weight in model.weights)


def test_pooled_times_projection_is_projected(tiny, images):
    pooled, projected = (predict(backbones.vision_model(tiny, 48, features), images) for features in ("pooled", "projected"))
    kernel = keras.ops.convert_to_numpy(tiny.network.vision_projection.kernel)
    np.testing.assert_allclose(pooled @ kernel, projected, atol=1e-5)


def test_layers_patches_and_variances_are_of_tokens_after_blocks_from_1(tiny, images, tmp_path):
    model = backbones.vision_model(tiny, 48, "pooled+penultimate+patches:1,2+layers:1,2+variances:1,2")
    model.save(tmp_path / "m.keras")
    layer_1, layer_2, patches_1, patches_2, *variances, penultimate, pooled = predict(models.load(tmp_path / "m.keras"), images)
    vision, resized = tiny.network.vision_encoder, keras.Model(model.input, model.get_layer("normalise").output)
    tokens = vision.pre_layer_norm(vision.embedding(resized(images)))
    for block, of_class, of_patches, variance in zip(vision.encoder_layers, (layer_1, layer_2), (patches_1, patches_2), variances,
                                                     strict=True):  # fmt: skip
        tokens = block(tokens)
        values = keras.ops.convert_to_numpy(tokens)
        assert values.shape == (3, 1 + 16, 32)
        np.testing.assert_allclose(of_class, values[:, 0], atol=1e-5)
        np.testing.assert_allclose(of_patches, values[:, 1:].mean(1), atol=1e-5)
        np.testing.assert_allclose(variance, np.log(values[:, 1:].var(1) + 1e-3), atol=1e-4)
    np.testing.assert_allclose(penultimate, layer_1, atol=1e-6)
    np.testing.assert_allclose(pooled, keras.ops.convert_to_numpy(vision.layer_norm(layer_2)), atol=1e-5)


def test_patches_exclude_register_tokens(images):
    from keras_hub import models as hub

    sizes = {"patch_size": 8, "hidden_dim": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 32}
    shapes = {"image_shape": (32, 32, 3), "position_embedding_shape": (32, 32)}
    network = hub.DINOV2Backbone(**sizes, **shapes, num_register_tokens=3)
    backbone = Backbone("other", network, Preprocessing.from_mean_and_std((0.5,) * 3, (0.5,) * 3, 32))
    model = backbones.vision_model(backbone, 32, "patches:1+pooled")
    normalised = keras.Model(model.input, model.get_layer("normalise").output)(images[:, :32, :32])
    tokens = keras.ops.convert_to_numpy(network.encoder.layers[0](network.embeddings(normalised)))
    assert tokens.shape == (3, 1 + 3 + 16, 16)
    np.testing.assert_allclose(predict(model, images[:, :32, :32])[0], tokens[:, 4:].mean(1), atol=1e-5)


@pytest.mark.slow  # test_open.py loads detectors with such a backbone in a new process
def test_a_new_process_loads_the_file_without_importing_keras_hub(tiny, images, tmp_path):
    model = backbones.vision_model(tiny, 48, "projected")
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", images)
    code = "import numpy as np; from tfdetect import models; np.save('y', models.load('m.keras').predict(np.load('x.npy')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), predict(model, images), atol=1e-6)


@pytest.mark.skipif(not backend.is_tensorflow(), reason="SavedModels need TensorFlow")
def test_features_survive_export(tiny, images, tmp_path):
    import tensorflow as tf

    model = backbones.vision_model(tiny, 48, "projected")
    model.export(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(tmp_path / "1")
    np.testing.assert_allclose(served.serve(images).numpy(), predict(model, images), atol=1e-5)


def test_mixed_precision_resizes_and_normalises_in_float32(images):
    """The eight bits of a bfloat16 mantissa would be coarser than a grey level."""
    expected = predict(backbones.vision_model(backbones.load("tiny"), 48, "projected"), images)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = backbones.vision_model(backbones.load("tiny"), 48, "projected")
        assert model.get_layer("resize").compute_dtype == model.get_layer("normalise").compute_dtype == "float32"
        np.testing.assert_allclose(predict(model, images).astype(np.float32), expected, atol=0.03)
    finally:
        keras.config.set_dtype_policy("float32")


def add_head(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, keras.layers.Dense(1, name="score")(model(inputs)))


def test_training_changes_only_adapters_and_head_and_saving_merges_the_adapters(images, tmp_path):
    model = backbones.vision_model(backbones.load("tiny"), 48, "projected")
    before = predict(model, images)
    backbones.add_lora(model, 2)
    np.testing.assert_allclose(predict(model, images), before, atol=1e-6, err_msg="adapters are initially zero")
    full = add_head(model)
    full.compile(keras.optimizers.Adam(1e-2), "mse")
    before = {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in full.weights}
    for _ in range(2):
        full.train_on_batch(images, np.array([[0.0], [1.0], [0.0]]))
    changed = {weight.path for weight in full.weights if (keras.ops.convert_to_numpy(weight) != before[weight.path]).any()}
    adapters = {f"vision_encoder_block_{block}/attention/{part}/lora_kernel_{side}"
                for block in (0, 1) for part in ("query", "value") for side in "ab"}  # fmt: skip
    assert changed == adapters | {"score/kernel", "score/bias"} == {weight.path for weight in full.trainable_weights}
    full.save(tmp_path / "m.keras")
    loaded = models.load(tmp_path / "m.keras")
    np.testing.assert_allclose(predict(loaded, images), predict(full, images), atol=1e-6)
    assert loaded.count_params() < full.count_params(), "the adapters are merged into the projections"


def test_the_last_blocks_can_be_trained(images):
    model = backbones.vision_model(backbones.load("tiny"), 48, "projected")
    for layer in model.layers:
        layer.trainable = layer in backbones.transformer_blocks(model)[-1:]
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"vision_encoder_block_1"}


@pytest.mark.parametrize("features", WIDTH)
def test_faster_blocks_change_neither_features_nor_files(images, features, tmp_path):
    model = backbones.vision_model(backbones.load("tiny"), 48, features)
    slow, config = predict(model, images), model.to_json()
    model.save(tmp_path / "m.keras")
    fast_blocks.speed_up(model)
    fast = keras.Model(model.inputs, model.outputs)  # a new model has no compiled predict function
    np.testing.assert_allclose(predict(fast, images), slow, atol=1e-5)
    assert model.to_json() == config
    loaded = models.load(tmp_path / "m.keras")
    np.testing.assert_allclose(predict(loaded, images), slow, atol=1e-5)
    for network in (model, loaded):
        blocks = backbones.transformer_blocks(network)
        patched = [dense for block in blocks for dense in (block.attention.key_dense, block.attention.output_dense)]
        assert patched and all("call" in vars(dense) for dense in patched)
        assert blocks[-1](np.ones((2, 17, 32), np.float32)).shape == (2, 1, 32), "the class token alone"


def test_blocks_compute_all_positions_that_are_read(images):
    vision = keras.models.clone_model(backbones.vision_model(backbones.load("tiny"), 48, "pooled"))
    tokens = vision.get_layer("vision_layer_norm").output
    for read in (keras.layers.GlobalAveragePooling1D()(tokens), tokens[:, 1], tokens):
        model = keras.Model(vision.inputs, read)
        slow = predict(model, images)
        fast_blocks.speed_up(model)
        np.testing.assert_allclose(predict(keras.Model(model.inputs, model.outputs), images), slow, atol=1e-5)


def test_impossible_adapters_are_refused(tiny):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        backbones.add_lora(backbones.vision_model(tiny, 32, "pooled"), 0)
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="this backbone has none"):
        backbones.add_lora(keras.Model(inputs, keras.layers.Dense(2)(inputs)), 2)


def test_texts_are_embedded_independently_and_truncated(tiny):
    encode = backbones.text_encoder(tiny)
    rows = encode(["a face", "A  FACE", "a phase", "a " * 100, "a " * 101])
    assert rows.shape == (5, 16) and rows.dtype == np.float32
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6, err_msg="case and repeated spaces are ignored")
    np.testing.assert_allclose(rows[3], rows[4], atol=1e-6)
    assert abs(rows[0] - rows[2]).max() > 1e-2
    np.testing.assert_allclose(rows[2:3], encode(["a phase"]), atol=1e-6)


def test_text_embeddings_equal_keras_hubs(tiny):
    prompts = ["a photograph of the face", "rendered"]
    ids = backbones.tokenize(tiny.load_tokenizer(), prompts, 77)
    expected = keras.ops.convert_to_numpy(tiny.network.get_text_embeddings(ids))
    np.testing.assert_allclose(backbones.text_encoder(tiny)(prompts), expected, atol=1e-5)


@pytest.fixture
def saved(tiny, tmp_path):
    """A folder with `tiny` as keras-hub saves presets."""
    import keras_hub

    preprocessing = tiny.preprocessing
    tiny.network.save_to_preset(tmp_path / "clip")
    keras_hub.layers.CLIPImageConverter((32, 32), list(preprocessing.scale), list(preprocessing.offset),
                                        interpolation="bicubic").save_to_preset(tmp_path / "clip")  # fmt: skip
    tiny.load_tokenizer().save_to_preset(tmp_path / "clip")
    return tmp_path / "clip"


def test_a_folder_saved_by_keras_hub_loads(saved, tiny, images):
    loaded = backbones.load(str(saved))
    assert loaded.preprocessing == tiny.preprocessing
    features, expected = (predict(backbones.vision_model(backbone, 48, "projected"), images) for backbone in (loaded, tiny))
    np.testing.assert_allclose(features, expected, atol=1e-6)
    np.testing.assert_allclose(backbones.text_encoder(loaded)(["a face"]), backbones.text_encoder(tiny)(["a face"]), atol=1e-6)


def test_an_incomplete_folder_is_refused(saved):
    (saved / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no text encoder"):
        backbones.text_encoder(backbones.load(str(saved)))
    (saved / "image_converter.json").unlink()
    with pytest.raises(ValueError, match="has no image_converter.json; give --detector.preset"):
        backbones.require(str(saved))


@pytest.mark.parametrize(("name", "text", "message"), [
    ("config.json", "no json", "it is not valid JSON"), ("config.json", "[]", "it lacks a JSON object"),
    ("model.weights.h5", "no hdf5", "could not be opened as a preset of keras-hub"),
    ("config.json", '{"model_type": "clip"}', "use --detector.preset hf-clip:"),
    ("config.json", '{"model_type": "dinov2"}', "has no model.safetensors and no preprocessor_config.json"),
])  # fmt: skip
def test_a_damaged_folder_is_refused(name, text, message, saved):
    (saved / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        backbones.load(str(saved))


def test_a_misspelt_preset_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"keras-hub; give --detector.preset .*\. Perhaps you meant clip_vit_base_patch32\.$"):
        backbones.require("clip_vit_base_pach32")


def test_without_a_network_the_error_says_what_to_put_where(monkeypatch):
    import kagglehub

    def refuse(handle, path):
        raise ConnectionError("Failed to resolve 'api.kaggle.com'")

    monkeypatch.setattr(kagglehub, "model_download", refuse)
    start = time.monotonic()
    with pytest.raises(ValueError) as error:
        backbones.require("clip_vit_base_patch32")
    text = str(error.value)
    assert "could not be downloaded (ConnectionError Failed to resolve 'api.kaggle.com')" in text
    assert "download https://www.kaggle.com/models/keras/clip/keras/clip_vit_base_patch32/" in text
    assert "--detector.preset FOLDER" in text and "hf-clip:FOLDER" in text and "\n" not in text
    assert time.monotonic() - start < 30


def test_all_required_files_are_downloaded(monkeypatch):
    import kagglehub

    downloads = []
    monkeypatch.setattr(kagglehub, "model_download", lambda handle, path: downloads.append((handle, path)))
    backbones.require("clip_vit_base_patch32")
    backbones.require("dinov2_base")
    assert [path for handle, path in downloads if "clip" in handle] == [
        "config.json", "image_converter.json", "model.weights.h5", "tokenizer.json", "assets/tokenizer/vocabulary.json",
        "assets/tokenizer/merges.txt"]  # fmt: skip
    assert len([path for handle, path in downloads if "dinov2" in handle]) == 3


def test_a_downloaded_preset_loads_without_a_network(saved, tiny, images, tmp_path, monkeypatch):
    """kagglehub's cache holds a small CLIP under the name of a large one."""
    import keras_hub

    handle = keras_hub.models.CLIPBackbone.presets["clip_vit_base_patch32"]["kaggle_handle"].removeprefix("kaggle://")
    folder = tmp_path / "cache" / "models" / handle
    shutil.copytree(saved, folder)
    for file in filter(Path.is_file, saved.rglob("*")):
        marker = folder.parent / ".complete" / folder.name / f"{file.relative_to(saved)}.complete"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    loaded = backbones.load("clip_vit_base_patch32")
    features, expected = (predict(backbones.vision_model(backbone, 48, "projected"), images) for backbone in (loaded, tiny))
    np.testing.assert_allclose(features, expected, atol=1e-6)
    np.testing.assert_allclose(backbones.text_encoder(loaded)(["a face"]), backbones.text_encoder(tiny)(["a face"]), atol=1e-6)


def other_backbones():
    """Yield (backbone, features that it has, number of transformer blocks) for other kinds of backbones."""
    from keras_hub import models as hub

    sizes = {"patch_size": 8, "hidden_dim": 16, "num_layers": 2, "num_heads": 2}
    text = {"vocabulary_size": 32, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2}
    vision = hub.SigLIPVisionEncoder(**sizes, intermediate_dim=32, image_shape=(32, 32, 3))
    yield hub.SigLIPBackbone(vision, hub.SigLIPTextEncoder(**text, intermediate_dim=32)), set(WIDTH), 2
    shapes = {"image_shape": (32, 32, 3), "position_embedding_shape": (32, 32)}
    yield hub.DINOV2Backbone(**sizes, intermediate_dim=32, **shapes), {"pooled", "penultimate"}, 2
    yield hub.ViTBackbone(**sizes, mlp_dim=32, image_shape=(32, 32, 3)), {"pooled"}, 2
    yield hub.ResNetBackbone([64], [7], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=(32, 32, 3)), {"pooled"}, 0


def test_other_kinds_of_backbones(images, tmp_path):
    for network, available, count in other_backbones():
        backbone = Backbone("other", network, Preprocessing.from_mean_and_std((0.5,) * 3, (0.5,) * 3, 32))
        for features in available:
            model = backbones.vision_model(backbone, 48, features)
            model.save(tmp_path / "m.keras")
            loaded = models.load(tmp_path / "m.keras")
            np.testing.assert_allclose(predict(loaded, images), predict(model, images), atol=1e-5)
            assert len(backbones.transformer_blocks(loaded)) == count - (features == "penultimate")
        for features in set(WIDTH) - available:
            with pytest.raises(ValueError, match=f"has no features '{features}', expected"):
                backbones.vision_model(backbone, 48, features)
        with pytest.raises(ValueError, match="no text encoder"):
            backbones.text_encoder(backbone)


def test_siglip_projections_equal_keras_hubs(images):
    network = next(other_backbones())[0]
    model = backbones.vision_model(Backbone("other", network, Preprocessing(32, 32, (1 / 255,) * 3, (0.0,) * 3)), 32, "projected")
    expected = keras.ops.convert_to_numpy(network.get_vision_embeddings(images[:, :32, :32] / 255))
    np.testing.assert_allclose(predict(model, images[:, :32, :32]), expected, atol=1e-5)
