"""Presets of foundation models: found or refused, cut to their picture's side, frozen but for adapters, saved and exported."""

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
from tfdetect.models.pretrained import backbones
from tfdetect.models.pretrained.backbone import Backbone, Preprocessing

ROOT = Path(__file__).parents[3]
WIDTH = {"projected": 16, "pooled": 32, "penultimate": 32}


@pytest.fixture(scope="module")
def tiny():
    return backbones.load("tiny")


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (3, 48, 48, 3)).astype(np.float32)


def values(model, pictures):
    return model.predict(pictures, verbose=0)


def test_tiny_is_the_same_every_time_on_every_backend(tiny, pictures):
    """Numbers from TensorFlow."""
    model = backbones.vision_model(tiny, 48, "projected")
    assert model.name == "backbone" and model.input_shape == (None, 48, 48, 3)
    np.testing.assert_allclose(values(model, pictures)[0, :4], [-0.6596, 0.18275, 0.37403, -0.05499], atol=1e-4)
    again = backbones.load("tiny")
    assert (values(backbones.vision_model(again, 48, "projected"), pictures) == values(model, pictures)).all()
    assert backbones.random("tiny") and not backbones.random("clip_vit_base_patch32")


@pytest.mark.parametrize("features", WIDTH)
def test_features_survive_keras_files(features, tiny, pictures, tmp_path):
    model = backbones.vision_model(tiny, 48, features)
    before = values(model, pictures)
    assert before.shape == (3, WIDTH[features]) and len(np.unique(before)) == before.size
    model.save(tmp_path / "m.keras")
    again = models.load(tmp_path / "m.keras")
    np.testing.assert_allclose(values(again, pictures), before, atol=1e-6)
    assert [block.name for block in backbones.transformer_blocks(again)] == [block.name for block in backbones.transformer_blocks(model)]
    assert len(backbones.transformer_blocks(model)) == (1 if features == "penultimate" else 2), "nothing is carried along unused"
    assert not any("text" in weight.path for weight in model.weights)


def test_pooled_times_projection_is_projected(tiny, pictures):
    pooled, projected = (values(backbones.vision_model(tiny, 48, features), pictures) for features in ("pooled", "projected"))
    kernel = keras.ops.convert_to_numpy(tiny.net.vision_projection.kernel)
    np.testing.assert_allclose(pooled @ kernel, projected, atol=1e-5)


def test_a_fresh_process_loads_the_file_without_being_told_of_keras_hub(tiny, pictures, tmp_path):
    model = backbones.vision_model(tiny, 48, "projected")
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", pictures)
    code = "import numpy as np; from tfdetect import models; np.save('y', models.load('m.keras').predict(np.load('x.npy')))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), values(model, pictures), atol=1e-6)


@pytest.mark.skipif(not backend.is_tensorflow(), reason="SavedModels are TensorFlow's")
def test_features_survive_export(tiny, pictures, tmp_path):
    import tensorflow as tf

    model = backbones.vision_model(tiny, 48, "projected")
    model.export(tmp_path / "1", verbose=False)
    served = tf.saved_model.load(tmp_path / "1")
    np.testing.assert_allclose(served.serve(pictures).numpy(), values(model, pictures), atol=1e-5)


def test_mixed_precision_keeps_the_pixels_whole(pictures):
    """Eight bits of mantissa in resizing and normalising would be coarser than a grey level."""
    expected = values(backbones.vision_model(backbones.load("tiny"), 48, "projected"), pictures)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = backbones.vision_model(backbones.load("tiny"), 48, "projected")
        assert model.get_layer("resize").compute_dtype == model.get_layer("normalise").compute_dtype == "float32"
        np.testing.assert_allclose(values(model, pictures).astype(np.float32), expected, atol=0.03)
    finally:
        keras.config.set_dtype_policy("float32")


def with_head(model):
    inputs = keras.Input(model.input_shape[1:])
    return keras.Model(inputs, keras.layers.Dense(1, name="score")(model(inputs)))


def test_a_step_trains_adapters_and_head_alone_and_the_file_has_them(pictures, tmp_path):
    model = backbones.vision_model(backbones.load("tiny"), 48, "projected")
    before = values(model, pictures)
    backbones.add_lora(model, 2)
    np.testing.assert_allclose(values(model, pictures), before, atol=1e-6, err_msg="adapters start at nothing")
    full = with_head(model)
    full.compile(keras.optimizers.Adam(1e-2), "mse")
    old = {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in full.weights}
    for _ in range(2):
        full.train_on_batch(pictures, np.array([[0.0], [1.0], [0.0]]))
    moved = {weight.path for weight in full.weights if (keras.ops.convert_to_numpy(weight) != old[weight.path]).any()}
    adapters = {f"vision_encoder_block_{block}/attention/{part}/lora_kernel_{side}"
                for block in (0, 1) for part in ("query", "value") for side in "ab"}  # fmt: skip
    assert moved == adapters | {"score/kernel", "score/bias"} == {weight.path for weight in full.trainable_weights}
    full.save(tmp_path / "m.keras")
    again = models.load(tmp_path / "m.keras")
    np.testing.assert_allclose(values(again, pictures), values(full, pictures), atol=1e-6)
    assert again.count_params() < full.count_params(), "a plain model: its projections have taken the adapters in"


def test_the_last_blocks_can_be_trained(pictures):
    model = backbones.vision_model(backbones.load("tiny"), 48, "projected")
    for layer in model.layers:
        layer.trainable = layer in backbones.transformer_blocks(model)[-1:]
    assert {weight.path.split("/")[0] for weight in model.trainable_weights} == {"vision_encoder_block_1"}


@pytest.mark.parametrize("features", WIDTH)
def test_haste_changes_no_feature_and_no_file(pictures, features, tmp_path):
    model = backbones.vision_model(backbones.load("tiny"), 48, features)
    slow, config = values(model, pictures), model.to_json()
    backbones.use_batched_matmul(model)
    changed = [dense for block in backbones.transformer_blocks(model) for dense in (block.attention.key_dense, block.attention.output_dense)]
    assert changed and all("call" in vars(dense) for dense in changed)
    fast = keras.Model(model.inputs, model.outputs)  # with no function traced before
    np.testing.assert_allclose(values(fast, pictures), slow, atol=1e-5)
    assert model.to_json() == config
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(values(models.load(tmp_path / "m.keras"), pictures), slow, atol=1e-5)


def test_adapters_that_cannot_be_are_refused(tiny):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        backbones.add_lora(backbones.vision_model(tiny, 32, "pooled"), 0)
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="this backbone has none"):
        backbones.add_lora(keras.Model(inputs, keras.layers.Dense(2)(inputs)), 2)


def test_words_are_embedded_one_by_one_and_cut_to_what_fits(tiny):
    embed = backbones.text_encoder(tiny)
    found = embed(["a face", "A  FACE", "a phase", "a " * 100, "a " * 101])
    assert found.shape == (5, 16) and found.dtype == np.float32
    np.testing.assert_allclose(found[0], found[1], atol=1e-6, err_msg="case and spaces say nothing")
    np.testing.assert_allclose(found[3], found[4], atol=1e-6)
    assert abs(found[0] - found[2]).max() > 1e-2
    np.testing.assert_allclose(found[2:3], embed(["a phase"]), atol=1e-6)


def test_words_as_keras_hub_itself_embeds_them(tiny):
    prompts = ["a photograph of the face", "rendered"]
    ids = backbones.tokenize(tiny.tokenizer(), prompts, 77)
    expected = keras.ops.convert_to_numpy(tiny.net.get_text_embeddings(ids))
    np.testing.assert_allclose(backbones.text_encoder(tiny)(prompts), expected, atol=1e-5)


@pytest.fixture
def saved(tiny, tmp_path):
    """tiny in a folder as keras-hub saves presets."""
    import keras_hub

    pixels = tiny.pixels
    tiny.net.save_to_preset(tmp_path / "clip")
    keras_hub.layers.CLIPImageConverter((32, 32), list(pixels.scale), list(pixels.offset),
                                        interpolation="bicubic").save_to_preset(tmp_path / "clip")  # fmt: skip
    tiny.tokenizer().save_to_preset(tmp_path / "clip")
    return tmp_path / "clip"


def test_a_folder_of_keras_hub_opens(saved, tiny, pictures):
    net = backbones.load(str(saved))
    assert net.pixels == tiny.pixels
    one, other = (values(backbones.vision_model(at, 48, "projected"), pictures) for at in (net, tiny))
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(backbones.text_encoder(net)(["a face"]), backbones.text_encoder(tiny)(["a face"]), atol=1e-6)


def test_a_folder_without_a_part_is_refused(saved):
    (saved / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no text side"):
        backbones.text_encoder(backbones.load(str(saved)))
    (saved / "image_converter.json").unlink()
    with pytest.raises(ValueError, match="has no image_converter.json; give --detector.preset"):
        backbones.require(str(saved))


@pytest.mark.parametrize(("name", "text", "why"), [
    ("config.json", "no json", "could not be read as JSON"), ("config.json", "[]", "holds list, expected a JSON object"),
    ("model.weights.h5", "no hdf5", "could not be opened as a preset of keras-hub"),
    ("config.json", '{"model_type": "clip"}', "say --detector.preset hf-clip:"),
    ("config.json", '{"model_type": "dinov2"}', "has no model.safetensors and no preprocessor_config.json"),
])  # fmt: skip
def test_a_spoilt_folder_is_refused_in_a_sentence(name, text, why, saved):
    (saved / name).write_text(text)
    with pytest.raises(ValueError, match=why):
        backbones.load(str(saved))


def test_a_misspelt_preset_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"perhaps you meant clip_vit_base_patch32, or give --detector.preset a folder"):
        backbones.require("clip_vit_base_pach32")


def test_without_a_network_a_sentence_says_what_to_put_where(monkeypatch):
    import kagglehub

    def refuse(handle, path):
        raise ConnectionError("Failed to resolve 'api.kaggle.com'")

    monkeypatch.setattr(kagglehub, "model_download", refuse)
    start = time.monotonic()
    with pytest.raises(ValueError) as error:
        backbones.require("clip_vit_base_patch32")
    text = str(error.value)
    assert "could not be fetched (ConnectionError Failed to resolve 'api.kaggle.com')" in text
    assert "fetch https://www.kaggle.com/models/keras/clip/keras/clip_vit_base_patch32/" in text
    assert "--detector.preset FOLDER" in text and "hf-clip:FOLDER" in text and "\n" not in text
    assert time.monotonic() - start < 30


def test_what_is_fetched_is_all_that_is_needed(monkeypatch):
    import kagglehub

    asked = []
    monkeypatch.setattr(kagglehub, "model_download", lambda handle, path: asked.append((handle, path)))
    backbones.require("clip_vit_base_patch32")
    backbones.require("dinov2_base")
    assert [path for handle, path in asked if "clip" in handle] == [
        "config.json", "image_converter.json", "model.weights.h5", "tokenizer.json", "assets/tokenizer/vocabulary.json",
        "assets/tokenizer/merges.txt"]  # fmt: skip
    assert len([path for handle, path in asked if "dinov2" in handle]) == 3


def test_what_was_fetched_once_opens_by_name_without_a_network(saved, tiny, pictures, tmp_path, monkeypatch):
    """In kagglehub's folder of downloads lies a small CLIP under the name of a large one."""
    import keras_hub

    handle = keras_hub.models.CLIPBackbone.presets["clip_vit_base_patch32"]["kaggle_handle"].removeprefix("kaggle://")
    place = tmp_path / "cache" / "models" / handle
    shutil.copytree(saved, place)
    for file in filter(Path.is_file, saved.rglob("*")):
        marker = place.parent / ".complete" / place.name / f"{file.relative_to(saved)}.complete"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    net = backbones.load("clip_vit_base_patch32")
    one, other = (values(backbones.vision_model(at, 48, "projected"), pictures) for at in (net, tiny))
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(backbones.text_encoder(net)(["a face"]), backbones.text_encoder(tiny)(["a face"]), atol=1e-6)


def others():
    """Backbones of other kinds: (what it is, features that it has, blocks)."""
    from keras_hub import models as hub

    sizes = {"patch_size": 8, "hidden_dim": 16, "num_layers": 2, "num_heads": 2}
    words = {"vocabulary_size": 32, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 1, "num_heads": 2}
    picture = hub.SigLIPVisionEncoder(**sizes, intermediate_dim=32, image_shape=(32, 32, 3))
    yield hub.SigLIPBackbone(picture, hub.SigLIPTextEncoder(**words, intermediate_dim=32)), set(WIDTH), 2
    shapes = {"image_shape": (32, 32, 3), "position_embedding_shape": (32, 32)}
    yield hub.DINOV2Backbone(**sizes, intermediate_dim=32, **shapes), {"pooled", "penultimate"}, 2
    yield hub.ViTBackbone(**sizes, mlp_dim=32, image_shape=(32, 32, 3)), {"pooled"}, 2
    yield hub.ResNetBackbone([64], [7], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=(32, 32, 3)), {"pooled"}, 0


def test_backbones_of_other_kinds_have_what_they_have(pictures, tmp_path):
    for net, has, count in others():
        opened = Backbone("other", net, Preprocessing.of((0.5,) * 3, (0.5,) * 3, 32))
        for features in has:
            model = backbones.vision_model(opened, 48, features)
            model.save(tmp_path / "m.keras")
            again = models.load(tmp_path / "m.keras")
            np.testing.assert_allclose(values(again, pictures), values(model, pictures), atol=1e-5)
            assert len(backbones.transformer_blocks(again)) == count - (features == "penultimate")
        for features in set(WIDTH) - has:
            with pytest.raises(ValueError, match=f"has no features '{features}', expected"):
                backbones.vision_model(opened, 48, features)
        with pytest.raises(ValueError, match="no text side"):
            backbones.text_encoder(opened)


def test_siglip_projects_as_keras_hub_itself(pictures):
    net = next(others())[0]
    model = backbones.vision_model(Backbone("other", net, Preprocessing(32, 32, (1 / 255,) * 3, (0.0,) * 3)), 32, "projected")
    expected = keras.ops.convert_to_numpy(net.get_vision_embeddings(pictures[:, :32, :32] / 255))
    np.testing.assert_allclose(values(model, pictures[:, :32, :32]), expected, atol=1e-5)
