"""`squeezenet`: SqueezeNet 1.1 with ImageNet weights, a light backbone."""

from dataclasses import dataclass

from tfdetect.detector import register
from tfdetect.models.pretrained.hdf5 import Published
from tfdetect.models.transfer import Transfer

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
WIDENED = (3, 5)  # fire modules that a pooling follows


@register("squeezenet")
@dataclass(frozen=True)
class SqueezeNet(Transfer):
    """SqueezeNet 1.1 on single frames, from ImageNet weights; reads the statistics of all its blocks.

    Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016 (arXiv 1602.07360); 722,496
    parameters without its top. A fake shows in fine texture, so the first convolution leaves out no pixel (Gragnaniello et
    al. 2021, arXiv 2104.02617, do so with ResNet-50), and the head sees mean and log variance of every block's maps, not of the
    last alone. Command: `python scripts/train.py squeezenet --data.path DIR [--detector.weights FILE]`. On 700 photographs and
    700 StyleGAN faces, split 70/10/20, test AUC 0.927 with seed 0; 0.893 with the backbone frozen, 0.670 from scratch.
    """

    min_size = 32
    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 32, "train.epochs": 28, "train.schedule": "cosine",
              "train.patience": 28, "train.learning_rate": 2e-3}  # fmt: skip
    published = Published(
        "https://raw.githubusercontent.com/DeepCognition/keras-squeezenet/a73d4339aa4d37c51a0b3ba044bed55477abec73/"
        "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
    )

    stride: int = 1
    """Step of the first convolution; the published 2 takes a quarter of the time, and sees half as fine."""
    unfreeze_from: str = "fire4_squeeze1x1"
    """Second phase: train the backbone from this layer on; its name, the number of last layers, or all. Empty: never."""
    head_epochs: int = 10
    """Epochs of the first phase, in which the backbone is frozen; the second one has a tenth of the rate."""
    crop: int = 192
    """Pixels of the side of the crops that it trains on, a place of their own for each batch; 0 trains on whole pictures."""
    dropout: float = 0.5
    """Share of features dropped before each dense layer, in training."""
    sides: bool = True
    """Score the mean of a picture's and its mirror image's features: twice the work."""

    def backbone(self, x):
        from keras import layers

        from tfdetect.models.layers.common import bgr

        x = bgr(x)
        x = layers.Conv2D(64, 3, strides=self.stride, activation="relu", name="conv1")(x)
        blocks = [x]
        x = layers.MaxPooling2D(3, 2)(x)
        for number, (squeeze, expand) in enumerate(FIRES, 2):
            x = fire(x, f"fire{number}", squeeze, expand)
            blocks.append(x)
            if number in WIDENED:
                x = layers.MaxPooling2D(3, 2)(x)
        return blocks

    def pool(self, body):
        from keras import layers

        from tfdetect.models.layers.common import LogVariancePooling

        features = [pooled(maps) for maps in body.outputs for pooled in (layers.GlobalAveragePooling2D(), LogVariancePooling())]
        # Their scales are very unlike; and statistics must follow the backbone in the few steps of a small data set.
        return layers.BatchNormalization(momentum=0.9, name="features")(layers.Concatenate()(features))


def fire(x, name, squeeze, expand):
    """A squeeze to few channels, then two expanding convolutions side by side."""
    from keras import layers

    x = layers.Conv2D(squeeze, 1, activation="relu", name=f"{name}_squeeze1x1")(x)
    left = layers.Conv2D(expand, 1, activation="relu", name=f"{name}_expand1x1")(x)
    right = layers.Conv2D(expand, 3, padding="same", activation="relu", name=f"{name}_expand3x3")(x)
    return layers.Concatenate(name=f"{name}_concat")([left, right])
