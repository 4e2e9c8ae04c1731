"""`clip`: a frozen vision backbone, CLIP's or another, and a head that learns from its features in seconds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tfdetect.detector import Detector, register
from tfdetect.errors import UserError
from tfdetect.models import heads
from tfdetect.models.heads import HeadSettings
from tfdetect.models.pretrained import backbones, presets


@register("clip")
@dataclass(frozen=True)
class Clip(HeadSettings, Detector):
    """A frozen CLIP (or DINOv2, SigLIP, ViT ...) and a head: linear, mlp, logistic, svm, nearest, triplet_svm or prompts.

    Radford et al., "Learning transferable visual models from natural language supervision", 2021 (arXiv 2103.00020), by
    keras-hub. Its features carry over to generators that no training file came from: Ojha et al., "Towards universal fake image
    detectors", 2023 (arXiv 2302.10174), with a linear head and with nearest neighbours on ViT-L/14. The backbone is run once
    over the data, and its features are kept. Command: `python scripts/train.py clip --data.path DIR --detector.preset PRESET`.
    """

    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 64, "train.learning_rate": 2e-3,
              "train.epochs": 100, "train.patience": 10}  # fmt: skip

    preset: str = "clip_vit_base_patch32"
    """The backbone: a keras-hub preset by name or folder, hf-clip:FOLDER for OpenAI's form, or tiny: random, to try out."""
    features: Literal["projected", "pooled", "penultimate"] = "projected"
    """What of the backbone: the embedding beside the text's, the class token before that, or that of the last block but one."""
    feature_dtype: Literal["float32", "float16"] = "float32"
    """How features are kept; float16 takes half the room and has three digits."""
    views: int = 1
    """Of each training frame; all but the first go through --train.augment."""
    template: str = "a photo of a {category}"
    """The text of a file whose manifest has none, by its column category."""
    real_prompts: tuple[str, ...] = ("a real photo",)
    """prompts: texts of real pictures."""
    fake_prompts: tuple[str, ...] = ("a generated image",)
    """prompts: texts of fakes."""
    lora: int = 0
    """Train adapters of this rank in the backbone's attention too; 0 for none. linear and mlp only."""
    unfreeze: int = 0
    """Train the backbone's last blocks too, so many; 0 for none. linear and mlp only."""

    def __post_init__(self):
        for name in ("views", "hidden", "k", "bank", "projection"):
            if getattr(self, name) < 1:
                raise UserError(f"--detector.{name} must be at least 1, got {getattr(self, name)}.")
        if self.lora and self.unfreeze:
            raise UserError("--detector.lora and --detector.unfreeze exclude each other: adapters, or the last blocks?")
        if not self.caches_features and (self.head not in ("linear", "mlp") or self.text != "none" or self.views > 1):
            raise UserError("--detector.lora and --detector.unfreeze train the backbone by gradients: they need --detector.head "
                             "linear or mlp, without text and views.")  # fmt: skip
        if (self.text != "none" or self.head == "prompts") and self.features != "projected":
            raise UserError(f"Texts are compared with projected features, not with --detector.features {self.features}.")
        if self.text != "none" and self.head == "prompts":
            raise UserError("--detector.head prompts compares pictures with its own texts; leave out --detector.text.")

    @property
    def caches_features(self):
        return not (self.lora or self.unfreeze)

    @property
    def supports_focal_loss(self):
        return self.head in ("linear", "mlp")

    @property
    def initial_weights(self):
        return f"{self.preset}: random" if presets.random(self.preset) else self.preset

    @property
    def offline_overrides(self):
        return {"preset": presets.TINY}

    @property
    def text_template(self):
        return None if self.text == "none" else self.template

    def require(self):
        presets.require(self.preset, words=self.text != "none" or self.head == "prompts")

    def warnings(self):
        if not presets.random(self.preset):
            return ()
        return ("THE BACKBONE IS RANDOM, IT HAS LEARNT NOTHING FROM ANY PICTURE: these figures say nothing about detection. Name "
                "a trained one by --detector.preset.",)  # fmt: skip

    def texts(self) -> Callable[[Sequence[str]], np.ndarray]:
        """Embeds texts, beside pictures' projected features: (texts, n) float32."""
        return backbones.text(presets.load(self.preset))

    def build(self, clip_shape):
        import keras
        from keras import layers

        backbone = presets.load(self.preset)
        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        pixels = layers.Rescaling(1.0, name="pixels")(layers.Reshape(clip_shape[1:])(inputs))
        vision = backbones.vision(backbone, clip_shape[1], self.features)
        self.free(vision)
        features = layers.Identity(dtype="float32", name="features")(vision(pixels))
        model = keras.Model(inputs, heads.build_head(self, heads.join_closest_text(self, features, ("",))), name=self.name)
        if self.head == "prompts":
            embed, means = backbones.text(backbone), []
            for texts in (self.real_prompts, self.fake_prompts):
                rows = embed(texts)
                mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
                means.append(mean / np.linalg.norm(mean))
            model.get_layer("score").set_weights([100 * (means[1] - means[0])[:, None]])  # 100: CLIP's own sharpness
        return model

    def fit_head(self, model, context):
        return model if self.head == "prompts" else heads.fit_head(self, model, context, self.texts)

    def free(self, vision):
        """Of the backbone, train adapters, or the last blocks, or nothing."""
        if self.lora:
            backbones.lora(vision, self.lora)
            return
        blocks = backbones.blocks(vision)
        if self.unfreeze > len(blocks):
            raise UserError(f"--detector.unfreeze {self.unfreeze}: {self.preset} has {len(blocks)} blocks that can be trained.")
        for layer in vision.layers:
            layer.trainable = layer in blocks[len(blocks) - self.unfreeze :]
        if self.caches_features:
            backbones.use_batched_matmul(vision)
