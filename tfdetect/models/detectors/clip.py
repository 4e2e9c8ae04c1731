"""`clip`: a frozen vision backbone, CLIP or another one, with a head that trains on its features in seconds."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tfdetect.detector import Detector, FeatureFitContext, register
from tfdetect.errors import UserError, require_minimum
from tfdetect.models import feature_sets, heads
from tfdetect.models.heads import HeadSettings, TextEncoder
from tfdetect.models.pretrained import backbones, feature_names, presets

LOGIT_SCALE = 100  # of the published CLIP models, after training


@register("clip")
@dataclass(frozen=True)
class Clip(HeadSettings, Detector):
    """A frozen CLIP (or DINOv2, SigLIP, ViT ...) and a head: linear, mlp, logistic, svm, nearest, triplet_svm or prompts.

    Radford et al., "Learning transferable visual models from natural language supervision", 2021 (arXiv 2103.00020), through
    keras-hub. Its features generalise to generators that are absent from the training files: Ojha et al., "Towards universal
    fake image detectors", 2023 (arXiv 2302.10174), with a linear head and with nearest neighbours on ViT-L/14. The backbone runs
    once over the data, and its features are cached. Command:
    `tfdetect train clip --data.path DIR --detector.preset PRESET`.
    """

    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 64, "train.learning_rate": 2e-3,
              "train.epochs": 100, "train.patience": 10}  # fmt: skip

    preset: str = "clip_vit_base_patch32"
    """Backbone, one of these:
    NAME or FOLDER: a preset of keras-hub.
    hf-clip:FOLDER: OpenAI's CLIP in Hugging Face format.
    tiny: a small random CLIP for trying out."""
    features: str = "projected"
    """Backbone outputs, one or several joined by +, such as penultimate+patches:4,8.
    projected: the joint image-text embedding; texts need it alone.
    pooled: the class token before it.
    penultimate: the class token after the second-to-last block.
    layers:N,N: the class token after these blocks, of which the first is 1.
    patches:N,N: the mean of the patch tokens after these blocks.
    variances:N,N: the log variance of each channel over the patch tokens."""
    feature_dtype: Literal["float32", "float16"] = "float32"
    """Precision of cached features; float16 halves the disk space and keeps three digits."""
    views: int = 1
    """Views of each training frame; all but the first are augmented by --train.augment."""
    template: str = "a photo of a {category}"
    """Text for files without one in the manifest, filled in from its column category."""
    real_prompts: tuple[str, ...] = ("a real photo",)
    """prompts: texts that describe real images."""
    fake_prompts: tuple[str, ...] = ("a generated image",)
    """prompts: texts that describe fakes."""
    lora: int = 0
    """Rank of trainable low-rank adapters in the backbone's attention; 0 for none. linear and mlp only."""
    unfreeze: int = 0
    """Number of last backbone blocks to train; 0 for none. linear and mlp only."""

    def __post_init__(self) -> None:
        feature_names.parse(self.features)
        require_minimum(1, "detector", self, "views", "hidden", "k", "bank", "projection")
        if self.lora and self.unfreeze:
            raise UserError("--detector.lora and --detector.unfreeze exclude each other: train adapters or the last blocks.")
        if not self.caches_features and (self.head not in ("linear", "mlp") or self.text != "none" or self.views > 1):
            raise UserError("--detector.lora and --detector.unfreeze train the backbone by gradient descent: they need "
                            "--detector.head linear or mlp, without text and views.")  # fmt: skip
        if (self.text != "none" or self.head == "prompts") and self.features != "projected":
            raise UserError(f"Texts are compared with projected features, not with --detector.features {self.features}.")
        if self.text != "none" and self.head == "prompts":
            raise UserError("--detector.head prompts compares images with its own texts; leave out --detector.text.")

    @property
    def caches_features(self) -> bool:
        return not (self.lora or self.unfreeze)

    @property
    def supports_focal_loss(self) -> bool:
        return self.head in ("linear", "mlp")

    @property
    def initial_weights(self) -> str:
        return f"{self.preset}: random" if presets.is_random(self.preset) else self.preset

    @property
    def offline_overrides(self) -> dict[str, str]:
        return {"preset": presets.TINY, **({"features": "pooled"} if ":" in self.features else {})}  # it has two blocks

    @property
    def text_template(self) -> str | None:
        return None if self.text == "none" else self.template

    def require(self) -> None:
        presets.require(self.preset, with_text=self.text != "none" or self.head == "prompts")

    def warnings(self) -> tuple[str, ...]:
        if not presets.is_random(self.preset):
            return ()
        return ("THE BACKBONE IS RANDOM, NOT TRAINED: these figures say nothing about detection. Name a trained backbone with "
                "--detector.preset.",)  # fmt: skip

    def load_text_encoder(self) -> TextEncoder:
        """Return the preset's text encoder, whose embeddings are comparable with projected image features."""
        return backbones.text_encoder(presets.load(self.preset))

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras

        backbone = presets.load(self.preset)
        inputs = keras.Input(clip_shape, dtype="uint8", name="clip")
        vision = backbones.vision_model(backbone, clip_shape[1], self.features)
        self.set_trainable(vision)
        features = feature_sets.join(feature_sets.apply_vision(vision, inputs))
        score = heads.build_head(self, heads.join_closest_text(self, features, ("",)))
        model = keras.Model(inputs, score, name=self.name)
        if self.head == "prompts":
            encode = backbones.text_encoder(backbone)
            real, fake = (mean_direction(encode(texts)) for texts in (self.real_prompts, self.fake_prompts))
            model.get_layer("score").set_weights([LOGIT_SCALE * (fake - real)[:, None]])
        return model

    def fit_head(self, model: Any, context: FeatureFitContext) -> Any:
        return model if self.head == "prompts" else heads.fit_head(self, model, context, self.load_text_encoder)

    def set_trainable(self, vision: Any) -> None:
        """Make the adapters or the last blocks of the vision model trainable, and freeze the rest."""
        if self.lora:
            backbones.add_lora(vision, self.lora)
            return
        blocks = backbones.transformer_blocks(vision)
        if self.unfreeze > len(blocks):
            raise UserError(f"--detector.unfreeze {self.unfreeze}: {self.preset} has only {len(blocks)} blocks to train.")
        for layer in vision.layers:
            layer.trainable = layer in blocks[len(blocks) - self.unfreeze :]


def mean_direction(rows: np.ndarray) -> np.ndarray:
    """Return the mean of the rows' directions as a unit vector, (rows, n) -> (n,)."""
    from sklearn.preprocessing import normalize

    return normalize(normalize(rows).mean(axis=0, keepdims=True))[0]
