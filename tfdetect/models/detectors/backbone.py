"""`backbone`: any image network of keras.applications, keras-cv and keras-hub, by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from tfdetect.detector import FeatureFitContext, register
from tfdetect.errors import UserError, require_minimum
from tfdetect.models import heads
from tfdetect.models.heads import HeadSettings
from tfdetect.models.pretrained import networks
from tfdetect.models.pretrained.hdf5 import resolve_weights
from tfdetect.models.pretrained.weight_files import load_weights
from tfdetect.models.transfer import Transfer

TRIAL_SIZE = 96  # pixels, enough for every network of keras.applications; the weights do not depend on it


@register("backbone")
@dataclass(frozen=True)
class Backbone(HeadSettings, Transfer):
    """Any image network of keras.applications, keras-cv or keras-hub by name, with a new head, on single frames.

    With a frozen backbone, its features are computed once and stored, and the head trains on them in seconds. With
    `--detector.unfreeze_from`, the second phase fine-tunes the backbone. Xception and EfficientNet-B4 are the usual baselines of
    the field (recipes/xception_faceforensics.yaml, recipes/efficientnet_b4_faceforensics.yaml). Command:
    `tfdetect train backbone --detector.network efficientnet_b4`. EfficientNet-Lite0 with ImageNet weights on 700 photographs and
    700 StyleGAN faces: test AUC 0.832 with seed 0 with the head alone, 0.925 fine-tuned for 8 epochs (docs/detectors.md).
    """

    min_size = 32
    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 32, "train.epochs": 100, "train.patience": 10}

    network: str = "mobilenet_v3_small"
    """Network, one of these:
    NAME: in keras.applications, keras-cv or keras-hub, in this order, such as xception, efficientnet_b4 or vit_base.
    keras:NAME, keras_cv:NAME or keras_hub:NAME: in one of them.
    FOLDER: saved by keras-hub.
    tiny: a small network for trying out."""
    head: Literal["linear", "mlp", "logistic", "svm", "nearest", "triplet_svm"] = "linear"
    """Classifier on the features; all but linear need a frozen backbone, without dense, crop, sides and attribute."""
    text: ClassVar[Literal["none"]] = "none"  # type: ignore[misc]  # these networks have no texts
    feature_dtype: Literal["float32", "float16"] = "float32"
    """Precision of stored features; float16 halves the disk space and keeps three digits."""
    views: int = 1
    """Views of each training frame on a frozen backbone; all but the first are augmented by --train.augment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_minimum(1, "detector", self, "views", "hidden", "k", "bank", "projection")
        if not self.caches_features and (self.head != "linear" or self.views > 1):
            raise UserError("--detector.head and --detector.views need stored features of a pretrained, frozen backbone: leave "
                            "out --detector.weights none, unfreeze_from, dense, crop, sides and attribute.")  # fmt: skip

    @property
    def caches_features(self) -> bool:
        trains_on_images = self.unfreeze_from or self.dense or self.crop or self.sides or self.attribute != "none"
        return self.weights != "none" and not trains_on_images

    @property
    def supports_focal_loss(self) -> bool:
        return self.head in ("linear", "mlp")

    @property
    def offline_overrides(self) -> dict[str, str]:
        return {"network": networks.TINY, "weights": "none", "head": "linear"}

    @property
    def initial_weights(self) -> str:
        return "none" if self.weights == "none" else f"{self.network}: {self.weights}"

    def require(self) -> str:
        """Look the network up and load its weights once, to say before any other work whether they fit. Returns what was left out
        of a file."""
        if self.weights == "none":
            networks.find(self.network)
            return ""
        import keras

        images = keras.Input((TRIAL_SIZE, TRIAL_SIZE, 3))
        network, path = keras.Model(images, self.build_backbone(images)), self.weights_path()
        return load_weights(network, path) if path else ""

    def weights_path(self) -> Path | None:
        return None if self.weights == "imagenet" else resolve_weights(self.weights, None)

    def build_backbone(self, images: Any) -> Any:
        return networks.find(self.network).build(images, imagenet=self.weights == "imagenet")

    def pool(self, backbone: Any) -> Any:
        from keras import layers

        pooling = {4: layers.GlobalAveragePooling2D, 3: layers.GlobalAveragePooling1D}
        return pooling.get(len(backbone.output.shape), layers.Identity)(name="features")(backbone.output)

    def build_head(self, x: Any) -> Any:
        return heads.build_head(self, x) if self.caches_features else super().build_head(x)

    def fit_head(self, model: Any, context: FeatureFitContext) -> Any:
        return heads.fit_head(self, model, context, self.load_text_encoder)

    def load_text_encoder(self) -> heads.TextEncoder:
        raise NotImplementedError("These networks have no texts.")
