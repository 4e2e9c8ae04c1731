"""OpenAI's CLIP as Hugging Face's comes: against a forward pass in NumPy, against `transformers` itself, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfdetect.models.pretrained import backbones, hf_clip, tiny_clip
from tfdetect.models.pretrained.backbone import read_hugging_face_preprocessing

SIZE, PATCH, LENGTH, PROJECTION = 24, 8, 12, 6
# Nothing is alike, so that nothing can be mixed up.
PICTURE = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": SIZE,
           "patch_size": PATCH}  # fmt: skip
WORDS = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 530,
         "max_position_embeddings": LENGTH, "eos_token_id": 523}  # fmt: skip
PROMPTS = ["A photo of the Face.", "x" * 40, "", "The zz face"]  # "zz" is the token of the greatest number


def vocabulary():
    return {**tiny_clip.vocabulary(), "zz</w>": 529}


def folder(path, act="quick_gelu", end=523, seed=0):
    """A CLIP in `path` as `transformers` saves one."""
    path.mkdir(exist_ok=True)
    config = {"model_type": "clip", "projection_dim": PROJECTION, "vision_config": {**PICTURE, "hidden_act": act},
              "text_config": {**WORDS, "hidden_act": act, "eos_token_id": end}}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    save_file(drawn(np.random.default_rng(seed)), path / "model.safetensors")
    prepared = {"size": {"shortest_edge": SIZE}, "crop_size": SIZE, "do_center_crop": True, "resample": 3,
                "image_mean": tiny_clip.MEAN, "image_std": tiny_clip.STD}  # fmt: skip
    (path / "preprocessor_config.json").write_text(json.dumps(prepared))
    (path / "vocab.json").write_text(json.dumps(vocabulary()))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *tiny_clip.MERGES, "z z</w>"]) + "\n")
    return path


def drawn(draw):
    """Random weights by the names of `transformers`."""
    wide, deep = PICTURE["hidden_size"], WORDS["hidden_size"]
    shapes = {
        "logit_scale": (), "visual_projection.weight": (PROJECTION, wide), "text_projection.weight": (PROJECTION, deep),
        "vision_model.embeddings.class_embedding": (wide,),
        "vision_model.embeddings.patch_embedding.weight": (wide, 3, PATCH, PATCH),
        "vision_model.embeddings.position_embedding.weight": ((SIZE // PATCH) ** 2 + 1, wide),
        "text_model.embeddings.token_embedding.weight": (WORDS["vocab_size"], deep),
        "text_model.embeddings.position_embedding.weight": (LENGTH, deep),
    }  # fmt: skip
    norms = {"vision_model.pre_layrnorm": wide, "vision_model.post_layernorm": wide, "text_model.final_layer_norm": deep}
    for side, sizes in (("vision_model", PICTURE), ("text_model", WORDS)):
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
    return {name: np.asarray(draw.normal(0, 0.3, shape), np.float32) for name, shape in shapes.items()}


class Reference:
    """CLIP's forward pass in float64, written from the paper and `transformers`' names."""

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

    def picture(self, pictures):
        pixels = (pictures / 255 - np.array(tiny_clip.MEAN)) / np.array(tiny_clip.STD)
        grid = SIZE // PATCH
        patches = pixels.reshape(-1, grid, PATCH, grid, PATCH, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(pixels), grid**2, -1)
        at = "vision_model.embeddings."
        x = patches @ self.weights[at + "patch_embedding.weight"].reshape(PICTURE["hidden_size"], -1).T
        first = np.broadcast_to(self.weights[at + "class_embedding"], (len(x), 1, x.shape[-1]))
        x = np.concatenate([first, x], 1) + self.weights[at + "position_embedding.weight"]
        x = self.blocks(self.norm(x, "vision_model.pre_layrnorm"), "vision_model", PICTURE, causal=False)
        return self.norm(x[:, 0], "vision_model.post_layernorm") @ self.weights["visual_projection.weight"].T

    def words(self, ids, end):
        at = "text_model.embeddings."
        x = self.weights[at + "token_embedding.weight"][ids] + self.weights[at + "position_embedding.weight"]
        x = self.norm(self.blocks(x, "text_model", WORDS, causal=True), "text_model.final_layer_norm")
        place = ids.argmax(1) if end == 2 else (ids == end).argmax(1)
        return x[np.arange(len(x)), place] @ self.weights["text_projection.weight"].T


@pytest.mark.parametrize(("act", "end"), [("quick_gelu", 2), ("gelu", 523)])
def test_pictures_and_words_as_a_forward_pass_in_numpy(act, end, tmp_path, rng):
    """With both ways to find a text's end: the token of the greatest number in old configs, else the very token."""
    path = folder(tmp_path / "clip", act, end)
    net, reference = backbones.load(f"hf-clip:{path}"), Reference(load_file(path / "model.safetensors"), act)
    pictures = rng.uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)
    found = backbones.vision_model(net, SIZE, "projected").predict(pictures, verbose=0)
    np.testing.assert_allclose(found, reference.picture(pictures), atol=1e-5, rtol=1e-5)
    ids = backbones.tokenize(net.tokenizer(), PROMPTS, LENGTH)
    assert ids[3, :5].tolist() == [522, 513, 529, 520, 66]  # the</w> zz</w> fa c
    np.testing.assert_allclose(backbones.text_encoder(net)(PROMPTS), reference.words(ids, end), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.float16, "bfloat16"])
def test_weights_of_half_the_bits_are_read(kind, tmp_path, rng):
    import ml_dtypes

    path = folder(tmp_path / "clip")
    half = np.dtype(getattr(ml_dtypes, kind) if isinstance(kind, str) else kind)
    weights = {name: value.astype(half) for name, value in load_file(path / "model.safetensors").items()}
    save_file(weights, path / "model.safetensors")
    model = backbones.vision_model(backbones.load(f"hf-clip:{path}"), SIZE, "projected")
    pictures = rng.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    expected = Reference(weights, "quick_gelu").picture(pictures)
    np.testing.assert_allclose(model.predict(pictures, verbose=0), expected, atol=1e-5, rtol=1e-5)


def test_old_configs_leave_out_what_is_usual_and_have_a_second_dictionary():
    vision, text = hf_clip.sides({"text_config": {"hidden_act": "gelu"}, "vision_config_dict": {"patch_size": 14}})
    assert (vision["patch_size"], vision["hidden_size"], vision["hidden_act"]) == (14, 768, "quick_gelu")
    assert (text["hidden_act"], text["vocab_size"], text["max_position_embeddings"]) == ("gelu", 49408, 77)


def test_a_preprocessor_that_resizes_to_more_than_it_keeps(tmp_path):
    path = folder(tmp_path / "clip")
    config = json.loads((path / "preprocessor_config.json").read_text())
    (path / "preprocessor_config.json").write_text(json.dumps({**config, "size": 32, "resample": 2}))
    pixels = read_hugging_face_preprocessing(path)
    assert (pixels.size, pixels.whole, pixels.interpolation) == (SIZE, 32, "bilinear")


def spoil(path, name, **changes):
    config = json.loads((path / name).read_text())
    (path / name).write_text(json.dumps({**config, **changes}))


def weights(path, **changes):
    """Other arrays in place of some, none for None."""
    found = {**load_file(path / "model.safetensors"), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({name: value for name, value in found.items() if value is not None}, path / "model.safetensors")


REFUSED = {
    "no file": (lambda path: (path / "preprocessor_config.json").unlink(), "has no preprocessor_config.json; fetch config.json,"),
    "model": (lambda path: spoil(path, "config.json", model_type="siglip"), "of the type 'siglip', expected clip"),
    "json": (lambda path: (path / "config.json").write_text("{"), "config.json could not be read as JSON"),
    "activation": (lambda path: spoil(path, "config.json", text_config={"hidden_act": "relu"}), "hidden_act is 'relu'"),
    "epsilon": (lambda path: spoil(path, "config.json", vision_config={"layer_norm_eps": 1e-6}), "layer_norm_eps is 1e-06"),
    "heads": (lambda path: spoil(path, "config.json", vision_config={**PICTURE, "num_attention_heads": 5}), "is of no CLIP"),
    "missing": (lambda path: weights(path, visual_projection__weight=None), r"has no visual_projection.weight \(1 are missing\)"),
    "shape": (lambda path: weights(path, text_projection__weight=np.zeros((24, 6), np.float32)),
              r"text_projection.weight is \(24, 6\), expected \(6, 24\)"),
    "more": (lambda path: spoil(path, "config.json", text_config={**WORDS, "num_hidden_layers": 1}), "no place for its text_"),
    "garbage": (lambda path: (path / "model.safetensors").write_bytes(b"\x80\x04pickle"), "does not hold the weights"),
    "size": (lambda path: spoil(path, "preprocessor_config.json", crop_size=16), "makes 16 pixels, the model takes 24"),
    "crop": (lambda path: spoil(path, "preprocessor_config.json", size=16), "crops 24 pixels from 16"),
    "deviation": (lambda path: spoil(path, "preprocessor_config.json", image_std=[0, 1, 1]), "garbles .*division by zero"),
    "step": (lambda path: spoil(path, "preprocessor_config.json", do_normalize=False), "do_normalize false, expected true"),
    "resample": (lambda path: spoil(path, "preprocessor_config.json", resample=0), "expected size, image_mean"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(case, tmp_path):
    change, why = REFUSED[case]
    path = folder(tmp_path / "clip")
    change(path)
    with pytest.raises(ValueError, match=why):
        backbones.load(f"hf-clip:{path}")


def test_a_vocabulary_that_does_not_fit_is_refused_where_words_are_asked_for(tmp_path):
    path = folder(tmp_path / "clip")
    (path / "merges.txt").write_text("q qq\n")
    with pytest.raises(ValueError, match="vocab.json and merges.txt"):
        backbones.text_encoder(backbones.load(f"hf-clip:{path}"))
    backbones.text_encoder(backbones.load(f"hf-clip:{folder(path, end=7)}"))
    with pytest.raises(ValueError, match="ends its texts with token 7"):
        backbones.text_encoder(backbones.load(f"hf-clip:{path}"))(["face"])


def test_the_vocabulary_is_needed_for_texts_alone(tmp_path):
    path = folder(tmp_path / "clip")
    (path / "merges.txt").unlink()
    found = backbones.load(f"hf-clip:{path}")
    with pytest.raises(ValueError, match="no text side with CLIP's tokenizer"):
        backbones.text_encoder(found)
    with pytest.raises(ValueError, match="has no merges.txt; fetch .*vocab.json, merges.txt into it"):
        backbones.require(f"hf-clip:{path}", words=True)


@pytest.fixture
def theirs():
    """`transformers` on torch, where both are installed."""
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


def shaken(model, seed=0):
    """Weights far from zero, that the biases and norms count too; ready to be used."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_pictures_and_words_as_transformers_itself(act, theirs, tmp_path, rng):
    import torch

    path = folder(tmp_path / "clip")
    sizes = {"vision_config": {**PICTURE, "hidden_act": act}, "text_config": {**WORDS, "hidden_act": act}}
    model = shaken(theirs.CLIPModel(theirs.CLIPConfig(**sizes, projection_dim=PROJECTION)))
    model.save_pretrained(path)
    net, pictures = backbones.load(f"hf-clip:{path}"), rng.integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    prepared = theirs.CLIPImageProcessor.from_pretrained(path)(list(pictures), return_tensors="pt")
    tokenizer = theirs.CLIPTokenizer.from_pretrained(path)
    prompts = [*PROMPTS, "it's  12 o'clock!\nÀ é 你好 :)", "<|endoftext|> there"]
    ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    assert (ids["input_ids"].numpy() == backbones.tokenize(net.tokenizer(), prompts, LENGTH)).all()
    with torch.no_grad():
        seen = model.vision_model(**prepared, output_hidden_states=True)
        expected = {"projected": model.visual_projection(seen.pooler_output), "pooled": seen.pooler_output,
                    "penultimate": seen.hidden_states[-2][:, 0]}  # fmt: skip
        words = model.text_projection(model.text_model(**ids).pooler_output).numpy()
    for features, values in expected.items():
        found = backbones.vision_model(net, SIZE, features).predict(pictures.astype(np.float32), verbose=0)
        np.testing.assert_allclose(found, values.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(backbones.text_encoder(net)(prompts), words, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "DINOv3ViT"])
def test_dino_as_transformers_itself(kind, theirs, tmp_path, rng):
    import torch

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    model = shaken(getattr(theirs, f"{kind}Model")(getattr(theirs, f"{kind}Config")(**sizes)))
    model.save_pretrained(tmp_path)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    prepared = {"size": 28, "image_mean": mean.tolist(), "image_std": std.tolist(), "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
    pictures = rng.uniform(0, 255, (2, 28, 28, 3)).astype(np.float32)
    pixels = torch.tensor(((pictures / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        seen = model(pixels, output_hidden_states=True)
    net = backbones.load(str(tmp_path))
    for features, values in (("pooled", seen.last_hidden_state), ("penultimate", seen.hidden_states[-2])):
        found = backbones.vision_model(net, 28, features).predict(pictures, verbose=0)
        np.testing.assert_allclose(found, values[:, 0].numpy(), atol=1e-4, rtol=1e-4)
