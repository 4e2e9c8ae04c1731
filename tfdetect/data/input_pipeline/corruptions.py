"""What happens to pictures on their way: compressed, blurred, resized, cut ... The same steps augment a training and stress an
evaluation.

    chain = parse("flip|jpeg(30,100,p=0.5)|blur(0,3,p=0.5)")
    clips, labels = chain(clips, labels, seed)

Published: "blur(0,3,p=0.5)|jpeg(30,100,p=0.5)" (Wang et al. 2020, CNNDetection; its other model has p=0.1 for both) and
"jpeg(80)|blur(1.1,p=0.5)" (CLIP features on ProGAN: JPEG 80 on all pictures, Gaussian blur 5x5 on half of them; 1.1 is the sigma
that OpenCV takes for 5 pixels). docs/augment.md has all.

A step is a function of (clips (batch, frames, height, width, 3) uint8, values (batch,) float32 in the unit of its Kind, seed (2,)
int32) -> clips, which are rounded after each step, as a file would be. It is given the clips that the chance chose, so a rare
step costs little. Nothing here keeps a state: keras-cv's and Keras' layers draw from generators of their own, so that a run
that goes on could not repeat their draws.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import tensorflow as tf

from tfdetect import corruption_spec
from tfdetect.corruption_spec import KINDS, CorruptionSpec, CorruptionStep

CUTOUT_LEVEL = 127  # level of a cut-out, the middle


@dataclass(frozen=True)
class CorruptionChain(CorruptionSpec):
    """Steps that can be carried out, eagerly, in a graph or in tf.data."""

    def __call__(self, clips: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Clips (batch, frames, height, width, 3) uint8 and labels (batch, 1 or more) float32 -> the same, corrupted. The first
        label is the file's, 0 real and 1 fake; others are mixed with it, and selfblend leaves them.

        `seed` (2,) int32 decides all draws, on every machine. A clip has draws of its own, its frames have them in
        common; only noise differs from frame to frame. Labels change in mixup and selfblend alone.
        """
        with tf.device("CPU:0"):  # where tf.data is; another device would round otherwise
            clips, labels, seed = tf.convert_to_tensor(clips), tf.convert_to_tensor(labels, tf.float32), tf.cast(seed, tf.int32)
            for number, op in enumerate(self.ops):
                changed, labels = _apply_step(op, clips, labels, tf.random.fold_in(seed, number))
                clips = tf.ensure_shape(changed, clips.shape)
        return clips, labels


def parse(text: str) -> CorruptionChain:
    """A text such as "flip|jpeg(30,100,p=0.5)" -> what carries it out. Raises ValueError as `corruption_spec.parse`."""
    return CorruptionChain(corruption_spec.parse(text).ops)


def _apply_step(op: CorruptionStep, clips, labels, seed):
    """One step on the clips that its chance chooses."""
    draws = uniform(tf.random.fold_in(seed, 0), (2, tf.shape(clips)[0]))
    chosen, values, seed = draws[0] < op.p, _scale_draws(op, draws[1]), tf.random.fold_in(seed, 1)
    if op.name == "mixup":
        return mixup(clips, labels, tf.where(chosen, values, 0), seed)
    if op.name == "selfblend":
        chosen &= labels[:, 0] == 0  # a fake stays one; what was mixed up is neither
        labels = tf.concat([tf.where(chosen[:, None], 1.0, labels[:, :1]), labels[:, 1:]], 1)
    elif op.p == 1:
        return FUNCTIONS[op.name](clips, values, seed), labels
    where = tf.where(chosen)[:, 0]

    def changed():
        few = FUNCTIONS[op.name](tf.gather(clips, where), tf.gather(values, where), seed)
        return tf.tensor_scatter_nd_update(clips, where[:, None], few)

    return tf.cond(tf.size(where) > 0, changed, lambda: clips), labels


def _scale_draws(op: CorruptionStep, draws):
    """Draws of 0..1 -> of the op's range; each whole number is as likely as another."""
    if KINDS[op.name].whole:
        return tf.minimum(tf.floor(op.low + draws * (op.high - op.low + 1)), op.high)
    return tf.minimum(op.low + draws * (op.high - op.low), op.high)  # a sum of floats may be above


def uniform(seed, shape, low=0.0, high=1.0):
    """Float32 draws within low..high."""
    return tf.random.stateless_uniform(shape, seed, low, high)


def to_uint8(values):
    """Any numbers -> uint8, rounded; what is out of range becomes black or white."""
    return tf.saturate_cast(tf.round(values), tf.uint8)


def _per_clip(values):
    """(batch,) -> (batch, 1, 1, 1, 1), to be multiplied with clips."""
    return values[:, None, None, None, None]


def flip(clips, values, seed):
    """Left becomes right."""
    return tf.reverse(clips, [3])


def jpeg(clips, values, seed):
    """Compressed as JPEG, 4:2:0; decoded to the pixels that OpenCV and the reader give."""

    def one(item):
        frame, quality = item
        return tf.io.decode_jpeg(tf.raw_ops.EncodeJpegVariableQuality(images=frame, quality=quality), 3,
                                 dct_method="INTEGER_ACCURATE")  # fmt: skip

    quality = tf.repeat(tf.cast(values, tf.int32), tf.shape(clips)[1])
    return _unflatten(tf.map_fn(one, (_flatten(clips), quality), fn_output_signature=tf.uint8), clips)


def resize(clips, values, seed):
    """Down to a part of the sides by area and back up linearly."""
    size = tf.shape(clips)[2:4]

    def one(item):
        frames, part = item
        small = tf.maximum(tf.cast(tf.round(part * tf.cast(size, tf.float32)), tf.int32), 1)
        return to_uint8(tf.image.resize(tf.round(tf.image.resize(frames, small, "area")), size))

    return tf.map_fn(one, (clips, values), fn_output_signature=tf.uint8)


def crop(clips, values, seed):
    """A part of the picture, somewhere in it, enlarged to the whole."""
    return to_uint8(crop_float(clips, values, seed))


def crop_float(clips, values, seed):
    """As `crop`, float32."""
    first = uniform(seed, (2, tf.shape(values)[0])) * (1 - values)
    # Half a step beyond the last pixel is black to TensorFlow, and a sum of floats may be that.
    last = tf.where(values < 1, tf.minimum(first + values, 1 - 1e-5), 1)
    boxes = tf.repeat(tf.transpose(tf.concat([first, last], 0)), tf.shape(clips)[1], axis=0)
    frames = _flatten(clips)
    return _unflatten(tf.image.crop_and_resize(frames, boxes, tf.range(tf.shape(frames)[0]), tf.shape(clips)[2:4]), clips)


def noise(clips, values, seed):
    """Gaussian, another one in each frame and colour."""
    return to_uint8(tf.cast(clips, tf.float32) + _per_clip(values) * tf.random.stateless_normal(tf.shape(clips), seed))


def brightness(clips, values, seed):
    """The same number of levels added everywhere."""
    return to_uint8(tf.cast(clips, tf.float32) + _per_clip(values))


def contrast(clips, values, seed):
    """The distance from the clip's mean colour times a factor."""
    pixels = tf.cast(clips, tf.float32)
    mean = tf.reduce_mean(pixels, (1, 2, 3), keepdims=True)
    return to_uint8(mean + _per_clip(values) * (pixels - mean))


def cutout(clips, values, seed):
    """A grey patch, of a part of the sides, somewhere in the picture."""
    place = uniform(seed, (2, tf.shape(values)[0]))

    def inside(axis, length):
        covered = tf.round(values * tf.cast(length, tf.float32))
        first = tf.floor(place[axis] * (tf.cast(length, tf.float32) - covered + 1))
        at = tf.range(tf.cast(length, tf.float32))
        return (at >= first[:, None]) & (at < (first + covered)[:, None])

    rows, columns = inside(0, tf.shape(clips)[2]), inside(1, tf.shape(clips)[3])
    patch = rows[:, None, :, None, None] & columns[:, None, None, :, None]
    return tf.where(patch, tf.cast(CUTOUT_LEVEL, tf.uint8), clips)


def mixup(clips, labels, values, seed):
    """Each clip mixed with another of the batch, and so its label (Zhang et al. 2018); values (batch,) are the other's weight."""
    other = tf.random.experimental.stateless_shuffle(tf.range(tf.shape(clips)[0]), seed)
    pixels, weight = tf.cast(clips, tf.float32), _per_clip(values)
    mixed = to_uint8((1 - weight) * pixels + weight * tf.gather(pixels, other))
    return mixed, (1 - values[:, None]) * labels + values[:, None] * tf.gather(labels, other)


def selfblend(clips, values, seed):
    """A picture pasted into itself: a copy, slightly moved, coloured and blurred, shows through a soft spot in the middle.

    After self-blended images (Shiohara and Yamasaki 2022), whose spot follows the face's landmarks; here it is an ellipse, for
    pictures that a face fills. Copy and picture change places half of the time, so that not the spot itself is what tells.
    """
    count, seeds = tf.shape(values)[0], tf.unstack(tf.random.split(seed, 5))
    pixels = tf.cast(clips, tf.float32)
    copy = crop_float(clips, uniform(seeds[0], (count,), 0.95, 1.0), seeds[1])
    copy = tf.cast(blur(to_uint8(copy), uniform(seeds[2], (count,), 0.0, 1.5), seed), tf.float32)
    mean = tf.reduce_mean(copy, (1, 2, 3), keepdims=True)
    tint = uniform(seeds[3], (4, count, 1, 1, 1, 1), -1.0, 1.0)
    copy = mean + (1 + 0.15 * tint[3]) * (copy - mean) + 15 * tf.concat([tint[0], tint[1], tint[2]], -1)
    mask = _per_clip(values) * soft_ellipse(tf.shape(clips)[2], tf.shape(clips)[3], uniform(seeds[4], (6, count, 1, 1)))
    return to_uint8(pixels + mask * (copy - pixels))


def soft_ellipse(height, width, draws):
    """Masks (batch, 1, height, width, 1), 0..1, from draws (6, batch, 1, 1): a soft ellipse about the middle, or all but that."""
    down = (tf.range(tf.cast(height, tf.float32)) + 0.5)[:, None] / tf.cast(height, tf.float32)
    right = (tf.range(tf.cast(width, tf.float32)) + 0.5) / tf.cast(width, tf.float32)
    down = (down - 0.4 - 0.2 * draws[0]) / (0.2 + 0.2 * draws[1])
    right = (right - 0.4 - 0.2 * draws[2]) / (0.2 + 0.2 * draws[3])
    mask = tf.sigmoid((1 - tf.sqrt(down**2 + right**2)) / (0.03 + 0.2 * draws[4]))
    return tf.where(draws[5] < 0.5, mask, 1 - mask)[:, None, :, :, None]


def _flatten(clips):
    """(batch, frames, ...) -> (batch * frames, ...)."""
    return tf.reshape(clips, tf.concat([[-1], tf.shape(clips)[2:]], 0))


def _unflatten(frames, clips):
    """Back to the shape of `clips`."""
    return tf.reshape(frames, tf.shape(clips))


def numpy_step(function: Callable[[np.ndarray, float], np.ndarray]):
    """A step from a function of one clip, (frames, height, width, 3) uint8, and its value; it runs outside the graph."""

    def all_of(clips, values):
        return np.stack([function(clip, float(value)) for clip, value in zip(clips, values, strict=True)])

    def step(clips, values, seed):
        return tf.ensure_shape(tf.numpy_function(all_of, [clips, values], tf.uint8, stateful=False), clips.shape)

    return step


# Measured on 2 cores at 128 px, images/s: cv2 5700, a matrix product in the graph 2700, tf.nn.depthwise_conv2d 1400.
def _blur(clip: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in clip]) if sigma else clip


def _webp(clip: np.ndarray, quality: float) -> np.ndarray:
    def one(frame):
        data = cv2.imencode(".webp", frame[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, int(quality)])[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]

    return np.stack([one(frame) for frame in clip])


def _video(clip: np.ndarray, crf: float) -> np.ndarray:
    """Through H.264, 4:2:0, 25 frames a second, at a constant rate factor; odd sides are made even by repeating the last line."""
    import av  # here, since the others need no FFmpeg

    height, width = clip.shape[1:3]
    even, memory = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge"), io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *even.shape[1:3], "yuv420p"
        # x264 does not repeat itself with its macroblock tree: five results in 25 runs, one without.
        stream.options = {"crf": str(int(crf)), "threads": "1", "x264-params": "mbtree=0"}
        for frame in even:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    memory.seek(0)
    with av.open(memory) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames)[:, :height, :width]


blur, webp, video = numpy_step(_blur), numpy_step(_webp), numpy_step(_video)
FUNCTIONS = {"flip": flip, "jpeg": jpeg, "webp": webp, "video": video, "blur": blur, "resize": resize, "crop": crop, "noise": noise,
         "brightness": brightness, "contrast": contrast, "cutout": cutout, "selfblend": selfblend}  # fmt: skip
