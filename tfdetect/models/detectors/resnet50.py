"""`resnet50`: ResNet-50 with ImageNet weights, which can also predict the source of a fake."""

from dataclasses import dataclass
from typing import Any

from tfdetect.detector import register
from tfdetect.models.pretrained.hdf5 import WeightsFile
from tfdetect.models.transfer import Transfer


@register("resnet50")
@dataclass(frozen=True)
class ResNet50(Transfer):
    """ResNet-50 on single frames, from ImageNet weights, with frozen early stages.

    He et al., "Deep Residual Learning for Image Recognition", 2016 (arXiv 1512.03385), as in keras.applications. Commands:
    `tfdetect train resnet50`; with `--detector.attribute source` one model predicts both real or fake and the source of
    a fake. A published work trained one model for each: real or fake, on DALL-E fakes and LAION reals, with an accuracy of 0.87
    on Glide; and the source, with an accuracy of 0.93.
    """

    min_size = 32
    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 16, "train.epochs": 12}
    imagenet_weights = WeightsFile(
        "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
    )

    unfreeze_from: str = "conv4_block1_1_conv"
    """First backbone layer to train in the second phase: its name, a number of last layers, or all; empty: no second phase."""

    def build_backbone(self, images: Any) -> Any:
        import keras

        from tfdetect.models.layers.common import caffe_preprocess

        return keras.applications.ResNet50(include_top=False, weights=None, input_tensor=caffe_preprocess(images)).output
