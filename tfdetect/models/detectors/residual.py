"""`residual`: a small residual net on what JPEG stores of a picture, and a weight for each place; learns from few pictures."""

from dataclasses import dataclass

from tfdetect.detector import Detector, register
from tfdetect.errors import UserError


@register("residual")
@dataclass(frozen=True)
class Residual(Detector):
    """A small residual net on the cosines of 8 x 8 blocks, and a fingerprint: for a thousand pictures, no pretrained weights.

    No paper. Command: `python scripts/train.py residual --data.path DIR`. On 700 photographs and 700 StyleGAN faces, split
    70/10/20, test AUC 0.886 with seed 0. Another seed, and what was tried, are in docs/residual.md.
    """

    default_overrides = {"data.size": 256, "data.frames": 8, "train.batch": 32, "train.epochs": 80, "train.learning_rate": 2e-3,
              "train.schedule": "cosine", "train.patience": 80}  # fmt: skip

    widths: tuple[int, ...] = (48, 72, 96)
    """Channels of each stage; each after the first halves the grid."""
    depth: int = 1
    """Residual units in a stage."""
    augment: bool = True
    """In training, take mirror images, crops, units left out and one of the two parts for each picture, all at random."""
    crop: int = 128
    """Pixels of the side of the crops that it trains on, along the grid of 8 x 8 blocks; 0 trains on whole pictures."""
    dropout: float = 0.3
    """Share of features dropped before the score, in training."""
    skip: float = 0.1
    """Share of pictures for which a unit is left out, in training."""
    smoothing: float = 0.05
    """Labels are drawn this far towards undecided."""
    places: int = 4
    """Sums of every coefficient, as it lies, times a weight: they know the generator's fingerprint, and how faces lie that are
    all cut alike; 0 for pictures that have neither."""
    reach: float = 5.0
    """Grey levels at which those coefficients are cut off, softly."""
    share: float = 0.7
    """Share of the pictures, in training, that the net learns from; the others go to the fingerprint."""
    sides: bool = True
    """Score the mean of a picture and its mirror image: twice the work."""

    def __post_init__(self):
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"--detector.widths must name a number of channels for each stage, got {self.widths}.")
        if self.crop and self.crop < 8:
            raise UserError(f"--detector.crop must be 0 or hold a block of 8 pixels at least, got {self.crop}.")

    def losses(self):
        import keras

        return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=self.smoothing)

    def build(self, clip_shape):
        import keras
        from keras import layers

        from tfdetect.models.layers import block_dct
        from tfdetect.models.layers.common import AlignedCrop, FlipTTA, FlipTTAMean, RandomHorizontalFlip, clip_input, score

        if min(clip_shape[1:3]) < block_dct.BLOCK:
            raise UserError(f"residual needs pictures of 8 x 8 pixels at least, got {clip_shape[1]} x {clip_shape[2]}.")
        inputs, x = clip_input(clip_shape)
        placed = layers.Reshape(clip_shape[1:])(x)
        x = layers.Reshape(clip_shape[1:])(RandomHorizontalFlip()(x) if self.augment else x)
        if self.augment and self.crop:
            x = AlignedCrop(self.crop)(x)
        if self.sides:
            x = FlipTTA()(x)
        x = layers.GlobalAveragePooling2D()(self.stages(self.front(x)))
        if self.sides:
            x = FlipTTAMean()(x)
        x = layers.Dropout(self.dropout, name=None if self.places else "features")(x)
        if self.places:
            join = block_dct.BranchDropout(self.share, name="features") if self.augment else layers.Concatenate(name="features")
            x = join([x, self.placed(placed)])
        return keras.Model(inputs, score(x), name="residual")

    def placed(self, x):
        """Pictures as they lie, no crop, no mirror -> (batch, places): one weight for each coefficient of each block."""
        from keras import layers

        from tfdetect.models.layers.block_dct import BlockDCT, RunningMeanSubtraction

        x = layers.Flatten()(BlockDCT(self.reach, finest=4, strength=False)(x))
        x = layers.Rescaling(0.1)(RunningMeanSubtraction()(x))  # so many weights move a score too far at the rate of the others
        return layers.Dense(self.places, use_bias=False, kernel_initializer="zeros")(x)

    def front(self, x):
        """Pictures (batch, height, width, 3) in -1..1 -> (batch, height/8, width/8, channels); docs/residual.md tries others."""
        from keras import layers

        from tfdetect.models.layers.block_dct import BlockDCT

        return layers.ReLU()(norm()(layers.Conv2D(self.widths[0], 1, use_bias=False)(BlockDCT()(x))))

    def stages(self, x):
        """(batch, height, width, channels) -> the same, smaller and deeper."""
        for stage, width in enumerate(self.widths):
            for unit in range(self.depth):
                x = self.unit(x, width, 2 if stage and not unit else 1)
        return x

    def unit(self, x, width, stride):
        """x plus two convolutions of it; where the shapes differ, x is averaged and mixed into the new one."""
        from keras import layers

        y = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
        y = layers.Conv2D(width, 3, padding="same", use_bias=False)(layers.ReLU()(norm()(y)))
        y = norm()(y)
        if self.augment:
            y = layers.Dropout(self.skip, noise_shape=(None, 1, 1, 1))(y)
        if stride > 1:
            x = layers.AveragePooling2D(stride, padding="same")(x)
        if x.shape[-1] != width:
            x = norm()(layers.Conv2D(width, 1, use_bias=False)(x))
        return layers.ReLU()(layers.Add()([x, y]))


def norm():
    """Batch normalisation that follows the few steps of a small data set."""
    from keras import layers

    return layers.BatchNormalization(momentum=0.9)
