"""`residual`: a small residual network on block DCT coefficients plus position-specific weights; learns from few images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfdetect.detector import Detector, register
from tfdetect.errors import UserError


@register("residual")
@dataclass(frozen=True)
class Residual(Detector):
    """A small residual network on 8 x 8 block DCT coefficients, plus a fingerprint: for about a thousand training images.

    It needs no pretrained weights. The fingerprint is one weight for each low-frequency coefficient at each position.
    Command: `tfdetect train residual --data.path DIR`. On 700 photographs and 700 StyleGAN faces, split 70/10/20, the
    test AUC is 0.886 with seed 0. docs/residual.md has another seed and the ablations.
    """

    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 32, "train.epochs": 80, "train.learning_rate": 2e-3,
              "train.schedule": "cosine", "train.patience": 80}  # fmt: skip

    widths: tuple[int, ...] = (48, 72, 96)
    """Channels per stage; every stage after the first halves the resolution."""
    depth: int = 1
    """Residual units per stage."""
    augment: bool = True
    """Augment in training: random flips and crops, skipped residual units, and one of the two branches per image."""
    crop: int = 128
    """Side in pixels of random training crops along the grid of 8 x 8 blocks; 0 trains on whole images."""
    dropout: float = 0.3
    """Dropout rate before the score."""
    skip: float = 0.1
    """Probability of skipping a residual unit for an image in training (stochastic depth)."""
    smoothing: float = 0.05
    """Label smoothing."""
    places: int = 4
    """Outputs of the fingerprint branch, which has one weight per DCT coefficient and position; 0 for unaligned data."""
    reach: float = 5.0
    """fingerprint: grey levels at which DCT coefficients saturate."""
    share: float = 0.7
    """Fraction of training images that train the network branch; the others train the fingerprint."""
    sides: bool = True
    """Average the features of each image and its mirror image (test-time augmentation); doubles the work."""

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"--detector.widths must name the number of channels of each stage, got {self.widths}.")
        if self.crop and self.crop < 8:
            raise UserError(f"--detector.crop must be 0 or at least 8, the size of a block; got {self.crop}.")

    def losses(self) -> Any:
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=self.smoothing)

    def build(self, clip_shape: tuple[int, int, int, int]) -> Any:
        import keras
        from keras import layers

        from tfdetect.models.layers import block_dct
        from tfdetect.models.layers.common import AlignedCrop, FlipTTA, FlipTTAMean, RandomHorizontalFlip, clip_input, score_layer

        if min(clip_shape[1:3]) < block_dct.BLOCK_SIZE:
            raise UserError(f"residual needs images of at least 8 x 8 pixels, got {clip_shape[1]} x {clip_shape[2]}.")
        inputs, x = clip_input(clip_shape)
        image = layers.Reshape(clip_shape[1:])(x)
        x = layers.Reshape(clip_shape[1:])(RandomHorizontalFlip()(x) if self.augment else x)
        if self.augment and self.crop:
            x = AlignedCrop(self.crop)(x)
        if self.sides:
            x = FlipTTA()(x)
        x = layers.GlobalAveragePooling2D()(self.stages(self.front_end(x)))
        if self.sides:
            x = FlipTTAMean()(x)
        x = layers.Dropout(self.dropout, name=None if self.places else "features")(x)
        if self.places:
            join = block_dct.BranchDropout(self.share, name="features") if self.augment else layers.Concatenate(name="features")
            x = join([x, self.fingerprint(image)])
        return keras.Model(inputs, score_layer(x), name="residual")

    def fingerprint(self, images: Any) -> Any:
        """Return weighted sums (batch, places) of the DCT coefficients of unaugmented images, with one weight per position."""
        from keras import layers

        from tfdetect.models.layers.block_dct import BlockDCT, RunningMeanSubtraction

        x = layers.Flatten()(BlockDCT(self.reach, max_frequency=4, log_magnitude=False)(images))
        # The factor acts as a lower learning rate: steps on so many weights would change the score too much.
        x = layers.Rescaling(0.1)(RunningMeanSubtraction()(x))
        return layers.Dense(self.places, use_bias=False, kernel_initializer="zeros")(x)

    def front_end(self, images: Any) -> Any:
        """Map images (batch, height, width, 3) in -1..1 to (batch, height/8, width/8, channels); see docs/residual.md."""
        from keras import layers

        from tfdetect.models.layers.block_dct import BlockDCT

        return layers.ReLU()(batch_norm()(layers.Conv2D(self.widths[0], 1, use_bias=False)(BlockDCT()(images))))

    def stages(self, x: Any) -> Any:
        """Apply all residual units; `depth` units per stage, of which the first halves the resolution."""
        for stage, width in enumerate(self.widths):
            for unit in range(self.depth):
                x = self.residual_unit(x, width, 2 if stage and not unit else 1)
        return x

    def residual_unit(self, x: Any, width: int, stride: int) -> Any:
        """Add two convolutions to x; where shapes differ, x is average-pooled and projected by a 1 x 1 convolution."""
        from keras import layers

        y = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
        y = layers.Conv2D(width, 3, padding="same", use_bias=False)(layers.ReLU()(batch_norm()(y)))
        y = batch_norm()(y)
        if self.augment:
            y = layers.Dropout(self.skip, noise_shape=(None, 1, 1, 1))(y)
        if stride > 1:
            x = layers.AveragePooling2D(stride, padding="same")(x)
        if x.shape[-1] != width:
            x = batch_norm()(layers.Conv2D(width, 1, use_bias=False)(x))
        return layers.ReLU()(layers.Add()([x, y]))


def batch_norm() -> Callable[[Any], Any]:
    """Return batch normalisation with a momentum that suits the few steps that a small data set gives."""
    from keras import layers

    return layers.BatchNormalization(momentum=0.9)
