"""`squeezenet`: SqueezeNet 1.1 with ImageNet weights, a light backbone."""

from dataclasses import dataclass
from typing import Any

from tfdetect.detector import register
from tfdetect.models.pretrained.hdf5 import WeightsFile
from tfdetect.models.transfer import Transfer

# Squeeze and expand channels of fire2 to fire9.
FIRE_CHANNELS = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOL_AFTER = (3, 5)  # fire modules followed by max pooling


@register("squeezenet")
@dataclass(frozen=True)
class SqueezeNet(Transfer):
    """SqueezeNet 1.1 on single frames, from ImageNet weights; its head uses the channel statistics of all blocks.

    Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016 (arXiv 1602.07360); 722,496
    parameters without its top. Fakes show in fine texture, so the first convolution has stride 1 (as Gragnaniello et al. 2021,
    arXiv 2104.02617, do with ResNet-50), and the head sees the mean and log variance of the maps of every block, not only of the
    last. Command: `tfdetect train squeezenet --data.path DIR [--detector.weights FILE]`. On 700 photographs and
    700 StyleGAN faces, split 70/10/20, test AUC 0.927 with seed 0; 0.893 with a frozen backbone, 0.670 from scratch.
    """

    min_size = 32
    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 32, "train.epochs": 28, "train.schedule": "cosine",
              "train.patience": 28, "train.learning_rate": 2e-3}  # fmt: skip
    imagenet_weights = WeightsFile(
        "https://raw.githubusercontent.com/DeepCognition/keras-squeezenet/a73d4339aa4d37c51a0b3ba044bed55477abec73/"
        "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
    )

    stride: int = 1
    """Stride of the first convolution; the published 2 takes a quarter of the time at half the resolution."""
    unfreeze_from: str = "fire4_squeeze1x1"
    """First backbone layer to train in the second phase: its name, a number of last layers, or all; empty: no second phase."""
    head_epochs: int = 10
    """Epochs of the first phase, with a frozen backbone; the second phase has a tenth of the learning rate."""
    crop: int = 192
    """Side in pixels of random training crops, at one position per batch; 0 trains on whole images."""
    dropout: float = 0.5
    """Dropout rate before each dense layer."""
    sides: bool = True
    """Average the features of each image and its mirror image (test-time augmentation); doubles the work."""

    def build_backbone(self, images: Any) -> list[Any]:
        """Return the maps of the first convolution and of every fire module."""
        from keras import layers

        from tfdetect.models.layers.common import caffe_preprocess

        x = caffe_preprocess(images)
        x = layers.Conv2D(64, 3, strides=self.stride, activation="relu", name="conv1")(x)
        outputs = [x]
        x = layers.MaxPooling2D(3, 2)(x)
        for number, (squeeze, expand) in enumerate(FIRE_CHANNELS, 2):
            x = fire_module(x, f"fire{number}", squeeze, expand)
            outputs.append(x)
            if number in POOL_AFTER:
                x = layers.MaxPooling2D(3, 2)(x)
        return outputs

    def pool(self, backbone: Any) -> Any:
        from keras import layers

        from tfdetect.models.layers.common import LogVariancePooling

        features = [pooling(maps) for maps in backbone.outputs
                    for pooling in (layers.GlobalAveragePooling2D(), LogVariancePooling())]  # fmt: skip
        # The scales of the features differ widely. The momentum lets the statistics follow the backbone in the few steps that a
        # small data set gives.
        return layers.BatchNormalization(momentum=0.9, name="features")(layers.Concatenate()(features))


def fire_module(x: Any, name: str, squeeze: int, expand: int) -> Any:
    """Squeeze to few channels by a 1 x 1 convolution, then concatenate a 1 x 1 and a 3 x 3 convolution to `expand` channels."""
    from keras import layers

    x = layers.Conv2D(squeeze, 1, activation="relu", name=f"{name}_squeeze1x1")(x)
    left = layers.Conv2D(expand, 1, activation="relu", name=f"{name}_expand1x1")(x)
    right = layers.Conv2D(expand, 3, padding="same", activation="relu", name=f"{name}_expand3x3")(x)
    return layers.Concatenate(name=f"{name}_concat")([left, right])
