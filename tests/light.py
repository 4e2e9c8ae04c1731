"""Stubs for tests that train or evaluate only as a means to an end: they replace the parts that take the most time and that other
tests prove."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from in_process import map_here


def blank_png(figure) -> bytes:
    """Take the place of `style.to_png`: an image of one pixel, since drawing takes most of a report's time."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.full((1, 1, 3), 255, np.uint8)).save(buffer, "png")
    return figure.read_bytes() if isinstance(figure, Path) else buffer.getvalue()


def decode_plain_images(images, to_squares, frames=1, fps=None, limits=None, crops=1):
    """Take the place of `tf_images.decode_images`, whose graph is most of an export: intact JPEG and PNG images only."""
    import tensorflow as tf

    decode = lambda data: to_squares(tf.io.decode_jpeg(data, channels=3)[None])[0]  # noqa: E731
    decoded = tf.map_fn(decode, images, fn_output_signature=tf.uint8)
    return tf.range(tf.shape(images)[0]), decoded, tf.fill(tf.shape(images), "")


def resize(frames, size):
    """Take the place of `tf_decode.resize`: the same for frames of that size, otherwise close to it."""
    import tensorflow as tf

    return tf.cast(tf.image.resize(frames, (size, size), "area"), tf.uint8)


def blank_heat_maps(model, detector, score, errors):
    """Take the place of `explain_graph.make`, which traces the gradients of a model."""
    import tensorflow as tf

    return "occlusion", lambda clips: tf.zeros(tf.shape(clips)[:-1]), ""


@contextmanager
def in_process() -> Iterator[None]:
    """Decode in this process instead of starting others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfdetect.data.worker_pool._map_in_pool", lambda items, in_work, work, *_: map_here(items, work.work))
        yield


@contextmanager
def eager() -> Iterator[None]:
    """Let Keras compute without graphs: for a few small batches, tracing takes longer than all steps."""
    from keras.src.trainers.trainer import Trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run_eagerly", property(lambda self: True, lambda self, value: None))
        yield


@contextmanager
def stubs() -> Iterator[None]:
    """Replace all of the above, boosted trees in the search for shortcuts by single ones; leave out what --stress measures,
    and heat-maps, and most figures."""

    with in_process(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfdetect.plots.style.to_png", blank_png)
        patch.setattr("tfdetect.plots.standard.STANDARD", ("roc", "sources", "confusion"))
        patch.setattr("tfdetect.pages.html.to_png", blank_png)
        patch.setattr("tfdetect.data.media.tf_images.decode_images", decode_plain_images)
        patch.setattr("tfdetect.data.media.tf_decode.resize", resize)
        patch.setattr("tfdetect.serving.explain_graph.make", blank_heat_maps)
        patch.setattr("tfdetect.data.audit.shortcuts.MAX_CATEGORIES", 10**6)
        patch.setattr("tfdetect.workflow.stress.FILES", 0)
        patch.setattr("tfdetect.training.tensorboard.HEAT_MAPS_PER_CLASS", 0)
        patch.setattr("tfdetect.workflow.mistakes.MAPS", 0)
        yield
