"""OpenAI's CLIP from Hugging Face, compared with a forward pass in NumPy and with `transformers`; and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfdetect.models.pretrained import backbones, hf_clip, tiny_clip
from tfdetect.models.pretrained.backbone import read_hugging_face_preprocessing

SIZE, PATCH, LENGTH, PROJECTION = 24, 8, 12, 6
# All sizes differ, so that no two can be confused.
VISION = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": SIZE,
           "patch_size": PATCH}  # fmt: skip
TEXT = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 530,
         "max_position_embeddings": LENGTH, "eos_token_id": 523}  # fmt: skip
PROMPTS = ["A photo of the Face.", "x" * 40, "", "The zz face"]  # "zz" is the token with the largest id


def vocabulary():
    return {**tiny_clip.vocabulary(), "zz</w>": 529}


def write_clip(path, act="quick_gelu", end=523, seed=0):
    """Write a CLIP to `path` as `transformers` saves one."""
    path.mkdir(exist_ok=True)
    config = {"model_type": "clip", "projection_dim": PROJECTION, "vision_config": {**VISION, "hidden_act": act},
              "text_config": {**TEXT, "hidden_act": act, "eos_token_id": end}}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    save_file(random_weights(np.random.default_rng(seed)), path / "model.safetensors")
    preprocessing = {"size": {"shortest_edge": SIZE}, "crop_size": SIZE, "do_center_crop": True, "resample": 3,
                "image_mean": tiny_clip.MEAN, "image_std": tiny_clip.STD}  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    (path / "vocab.json").write_text(json.dumps(vocabulary()))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *tiny_clip.MERGES, "z z</w>"]) + "\n")
    return path


def random_weights(rng):
    """Return random weights by their names in `transformers`."""
    vision, text = VISION["hidden_size"], TEXT["hidden_size"]
    shapes = {
        "logit_scale": (), "visual_projection.weight": (PROJECTION, vision), "text_projection.weight": (PROJECTION, text),
        "vision_model.embeddings.class_embedding": (vision,),
        "vision_model.embeddings.patch_embedding.weight": (vision, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": ((SIZE // PATCH) ** 2 + 1, vision),
        "text_model.embeddings.token_embedding.weight": (TEXT["vocab_size"], text),
        "text_model.embeddings.position_embedding.weight": (LENGTH, text),
    }  # fmt: skip
    norms = {"vision_model.pre_layrnorm": vision, "vision_model.post_layernorm": vision, "text_model.final_layer_norm": text}
    for side, sizes in (("vision_model", VISION), ("text_model", TEXT)):
        width, inner = sizes["hidden_size"], sizes["intermediate_size"]
        for number in range(sizes["num_hidden_layers"]):
            at = f"{side}.encoder.layers.{number}"
            denses = {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
            denses |= {f"self_attn.{part}_proj": (width, width) for part in ("q", "k", "v", "out")}
            for name, shape in denses.items():
                shapes |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
            norms |= {f"{at}.layer_norm{one}": width for one in (1, 2)}
    for name, width in norms.items():
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return {name: np.asarray(rng.normal(0, 0.3, shape), np.float32) for name, shape in shapes.items()}


class Reference:
    """The forward pass of CLIP in float64, after the paper, with the weight names of `transformers`."""

    def __init__(self, weights, act):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.act = act

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def dense(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def gelu(self, x):
        from scipy.special import erf

        return x / (1 + np.exp(-1.702 * x)) if self.act == "quick_gelu" else x * (1 + erf(x / np.sqrt(2))) / 2

    def attend(self, x, name, heads, causal):
        q, k, v = (
            self.dense(x, f"{name}.{part}_proj").reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3) for part in "qkv"
        )
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        if causal:
            scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
        share = np.exp(scores - scores.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        return self.dense((share @ v).transpose(0, 2, 1, 3).reshape(x.shape), f"{name}.out_proj")

    def blocks(self, x, side, sizes, causal):
        for number in range(sizes["num_hidden_layers"]):
            at = f"{side}.encoder.layers.{number}"
            x = x + self.attend(self.norm(x, f"{at}.layer_norm1"), f"{at}.self_attn", sizes["num_attention_heads"], causal)
            x = x + self.dense(self.gelu(self.dense(self.norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
        return x

    def image_features(self, images):
        pixels = (images / 255 - np.array(tiny_clip.MEAN)) / np.array(tiny_clip.STD)
        grid = SIZE // PATCH
        patches = pixels.reshape(-1, grid, PATCH, grid, PATCH, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(pixels), grid**2, -1)
        at = "vision_model.embeddings."
        x = patches @ self.weights[at + "patch_embedding.weight"].reshape(VISION["hidden_size"], -1).T
        first = np.broadcast_to(self.weights[at + "class_embedding"], (len(x), 1, x.shape[-1]))
        x = np.concatenate([first, x], 1) + self.weights[at + "position_embedding.weight"]
        x = self.blocks(self.norm(x, "vision_model.pre_layrnorm"), "vision_model", VISION, causal=False)
        return self.norm(x[:, 0], "vision_model.post_layernorm") @ self.weights["visual_projection.weight"].T

    def text_features(self, ids, end):
        at = "text_model.embeddings."
        x = self.weights[at + "token_embedding.weight"][ids] + self.weights[at + "position_embedding.weight"]
        x = self.norm(self.blocks(x, "text_model", TEXT, causal=True), "text_model.final_layer_norm")
        position = ids.argmax(1) if end == 2 else (ids == end).argmax(1)
        return x[np.arange(len(x)), position] @ self.weights["text_projection.weight"].T


@pytest.mark.parametrize(("act", "end"), [("quick_gelu", 2), ("gelu", 523)])
def test_features_equal_a_forward_pass_in_numpy(act, end, tmp_path, rng):
    """A text ends at the token with the largest id in old configs, otherwise at the end token."""
    path = write_clip(tmp_path / "clip", act, end)
    backbone, reference = backbones.load(f"hf-clip:{path}"), Reference(load_file(path / "model.safetensors"), act)
    images = rng.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    features = backbones.vision_model(backbone, SIZE, "projected").predict(images, verbose=0)
    np.testing.assert_allclose(features, reference.image_features(images), atol=1e-5, rtol=1e-5)
    ids = backbones.tokenize(backbone.load_tokenizer(), PROMPTS, LENGTH)
    assert ids[3, :5].tolist() == [522, 513, 529, 520, 66]  # the</w> zz</w> fa c
    np.testing.assert_allclose(backbones.text_encoder(backbone)(PROMPTS), reference.text_features(ids, end), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
def test_half_precision_weights_are_read(kind, tmp_path, rng):
    import ml_dtypes

    path = write_clip(tmp_path / "clip")
    half = np.dtype(getattr(ml_dtypes, kind) if isinstance(kind, str) else kind)
    weights = {name: value.astype(half) for name, value in load_file(path / "model.safetensors").items()}
    save_file(weights, path / "model.safetensors")
    model = backbones.vision_model(backbones.load(f"hf-clip:{path}"), SIZE, "projected")
    images = rng.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    expected = Reference(weights, "quick_gelu").image_features(images)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5, rtol=1e-5)


def test_old_configs_omit_defaults_and_have_a_second_dictionary():
    vision, text = hf_clip.encoder_configs({"text_config": {"hidden_act": "gelu"}, "vision_config_dict": {"patch_size": 14}})
    assert (vision["patch_size"], vision["hidden_size"], vision["hidden_act"]) == (14, 768, "quick_gelu")
    assert (text["hidden_act"], text["vocab_size"], text["max_position_embeddings"]) == ("gelu", 49408, 77)


def test_a_preprocessor_that_crops_after_resizing(tmp_path):
    path = write_clip(tmp_path / "clip")
    config = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").write_text(json.dumps({**config, "size": 32, "resample": 2}))
    preprocessing = read_hugging_face_preprocessing(path)
    assert (preprocessing.size, preprocessing.resize_to, preprocessing.interpolation) == (SIZE, 32, "bilinear")


def change_json(path, name, **changes):
    config = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**config, **changes}))


def change_weights(path, **changes):
    """Replace arrays, or remove those whose new value is None."""
    arrays = {**load_file(path / "model.safetensors"), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value for name, value in arrays.items() if value is not None}, path / "model.safetensors")


CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
REFUSED = {
    "no file": (lambda path: (path / PREPROCESSOR).unlink(), "has no preprocessor_config.json; download config.json,"),
    "model": (lambda path: change_json(path, CONFIG, model_type="siglip"), "of the type 'siglip', expected clip"),
    "json": (lambda path: (path / CONFIG).write_text("{"), "config.json is damaged, it is not valid JSON"),
    "activation": (lambda path: change_json(path, CONFIG, text_config={"hidden_act": "relu"}), "hidden_act is 'relu'"),
    "epsilon": (lambda path: change_json(path, CONFIG, vision_config={"layer_norm_eps": 1e-6}), "layer_norm_eps is 1e-06"),
    "heads": (lambda path: change_json(path, CONFIG, vision_config={**VISION, "num_attention_heads": 5}),
              "does not describe a supported CLIP"),
    "missing": (lambda path: change_weights(path, visual_projection__weight=None),
                r"has no visual_projection.weight \(1 are missing\)"),
    "shape": (lambda path: change_weights(path, text_projection__weight=np.zeros((24, 6), np.float32)),
              r"text_projection.weight is \(24, 6\), expected \(6, 24\)"),
    "more": (lambda path: change_json(path, CONFIG, text_config={**TEXT, "num_hidden_layers": 1}), "does not describe its text_"),
    "garbage": (lambda path: (path / "model.safetensors").write_bytes(b"\x80\x04pickle"), "does not hold the weights"),
    "size": (lambda path: change_json(path, PREPROCESSOR, crop_size=16), "images of 16 pixels, but the model takes 24"),
    "crop": (lambda path: change_json(path, PREPROCESSOR, size=16), "crops 24 pixels from an image of 16"),
    "deviation": (lambda path: change_json(path, PREPROCESSOR, image_std=[0, 1, 1]), "invalid entry .*division by zero"),
    "step": (lambda path: change_json(path, PREPROCESSOR, do_normalize=False), "do_normalize false, expected true"),
    "resample": (lambda path: change_json(path, PREPROCESSOR, resample=0), "expected size, image_mean"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_or_mismatched_files_are_refused(case, tmp_path):
    change, message = REFUSED[case]
    path = write_clip(tmp_path / "clip")
    change(path)
    with pytest.raises(ValueError, match=message):
        backbones.load(f"hf-clip:{path}")


def test_a_mismatched_vocabulary_is_refused_when_texts_are_encoded(tmp_path):
    path = write_clip(tmp_path / "clip")
    (path / "merges.txt").write_text("q qq\n")
    with pytest.raises(ValueError, match="vocab.json and merges.txt"):
        backbones.text_encoder(backbones.load(f"hf-clip:{path}"))
    backbones.text_encoder(backbones.load(f"hf-clip:{write_clip(path, end=7)}"))
    with pytest.raises(ValueError, match="expects texts to end with token 7"):
        backbones.text_encoder(backbones.load(f"hf-clip:{path}"))(["face"])


def test_the_vocabulary_is_needed_for_texts_only(tmp_path):
    path = write_clip(tmp_path / "clip")
    (path / "merges.txt").unlink()
    backbone = backbones.load(f"hf-clip:{path}")
    with pytest.raises(ValueError, match="no text encoder with CLIP's tokenizer"):
        backbones.text_encoder(backbone)
    with pytest.raises(ValueError, match="has no merges.txt; download .*vocab.json, merges.txt into it"):
        backbones.require(f"hf-clip:{path}", with_text=True)


@pytest.fixture
def transformers():
    """`transformers` on torch; skips the test if either is missing."""
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def perturb(model, seed=0):
    """Add noise to all weights, so that biases and norms matter too, and switch to inference."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_features_equal_transformers(act, transformers, tmp_path, rng):
    import torch

    path = write_clip(tmp_path / "clip")
    sizes = {"vision_config": {**VISION, "hidden_act": act}, "text_config": {**TEXT, "hidden_act": act}}
    model = perturb(transformers.CLIPModel(transformers.CLIPConfig(**sizes, projection_dim=PROJECTION)))
    model.save_pretrained(path)
    backbone, images = backbones.load(f"hf-clip:{path}"), rng.integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    inputs = transformers.CLIPImageProcessor.from_pretrained(path)(list(images), return_tensors="pt")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(path)
    prompts = [*PROMPTS, "it's  12 o'clock!\nÀ é 你好 :)", "<|endoftext|> there"]
    ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    assert (ids["input_ids"].numpy() == backbones.tokenize(backbone.load_tokenizer(), prompts, LENGTH)).all()
    with torch.no_grad():
        output = model.vision_model(**inputs, output_hidden_states=True)
        expected = {"projected": model.visual_projection(output.pooler_output), "pooled": output.pooler_output,
                    "penultimate": output.hidden_states[-2][:, 0]}  # fmt: skip
        text_features = model.text_projection(model.text_model(**ids).pooler_output).numpy()
    for features, values in expected.items():
        result = backbones.vision_model(backbone, SIZE, features).predict(images.astype(np.float32), verbose=0)
        np.testing.assert_allclose(result, values.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(backbones.text_encoder(backbone)(prompts), text_features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "DINOv3ViT"])
def test_dino_features_equal_transformers(kind, transformers, tmp_path, rng):
    import torch

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    model = perturb(getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)))
    model.save_pretrained(tmp_path)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    preprocessing = {"size": 28, "image_mean": mean.tolist(), "image_std": std.tolist(), "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    images = rng.uniform(0, 255, (2, 28, 28, 3)).astype(np.float32)
    pixels = torch.tensor(((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        output = model(pixels, output_hidden_states=True)
    backbone = backbones.load(str(tmp_path))
    for features, values in (("pooled", output.last_hidden_state), ("penultimate", output.hidden_states[-2])):
        result = backbones.vision_model(backbone, 28, features).predict(images, verbose=0)
        np.testing.assert_allclose(result, values[:, 0].numpy(), atol=1e-4, rtol=1e-4)
