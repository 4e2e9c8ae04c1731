"""`inception`: InceptionV3 with ImageNet weights."""

from dataclasses import dataclass
from typing import Any

from tfdetect.detector import register
from tfdetect.models.pretrained.hdf5 import WeightsFile
from tfdetect.models.transfer import Transfer


@register("inception")
@dataclass(frozen=True)
class Inception(Transfer):
    """InceptionV3 on single frames, from ImageNet weights; by default only its head is trained.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016 (arXiv 1512.00567), as in
    keras.applications: 21,802,784 parameters without its top. Command:
    `tfdetect train inception --detector.unfreeze_from mixed7`. The published run that recipes/glem_inception.yaml
    repeats trained all layers on 256 x 256 pixels: test accuracy 0.903, loss 0.464.
    """

    min_size = 75
    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 16, "train.epochs": 12}
    imagenet_weights = WeightsFile(
        "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "bcbd6486424b2319ff4ef7d526e38f63",
    )

    def build_backbone(self, images: Any) -> Any:
        import keras

        x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalise")(images)
        return keras.applications.InceptionV3(include_top=False, weights=None, input_tensor=x).output
