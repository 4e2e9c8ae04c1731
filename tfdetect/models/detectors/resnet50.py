"""`resnet50`: ResNet-50 with ImageNet weights, and which source a fake has."""

from dataclasses import dataclass

from tfdetect.detector import register
from tfdetect.models.pretrained.hdf5 import Published
from tfdetect.models.transfer import Transfer


@register("resnet50")
@dataclass(frozen=True)
class ResNet50(Transfer):
    """ResNet-50 on single frames, from ImageNet weights; early stages frozen. Can name the source of a fake.

    He et al., "Deep Residual Learning for Image Recognition", 2016 (arXiv 1512.03385), as in keras.applications. Commands:
    `python scripts/train.py resnet50`, and `--detector.attribute source` for two levels in one model: real or fake, and for
    fakes the source. A published work had two models: level 1, trained on DALL-E fakes and LAION reals and tested on Glide,
    0.87 accuracy; level 2 0.93.
    """

    min_size = 32
    default_overrides = {"data.size": 224, "data.frames": 8, "train.batch": 16, "train.epochs": 12}
    published = Published(
        "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
    )

    unfreeze_from: str = "conv4_block1_1_conv"
    """Second phase: train the backbone from this layer on; its name, the number of last layers, or all. Empty: never."""

    def backbone(self, x):
        import keras

        from tfdetect.models.layers.common import bgr

        return keras.applications.ResNet50(include_top=False, weights=None, input_tensor=bgr(x)).output
