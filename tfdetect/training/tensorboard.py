"""What TensorBoard shows of a judged run besides its curves: graph, PR curve, clips with their scores, hyper-parameters, and
features in its projector."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfdetect import backend, files
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.models import autoencoder
from tfdetect.plots.features import balanced_sample

EXAMPLES = 6  # of each class
FRAMES = 8  # of each clip, side by side
POINTS = 5000  # of the projector, which a browser still turns smoothly
SIDE = 48  # pixels of a point's picture: 71 x 71 of them stay below the 8192 that browsers draw
Picture = Callable[[int], np.ndarray]


class ReconstructionImages(keras.callbacks.Callback):
    """Of an autoencoder, after each judged epoch: pictures beside what comes back of them, and histograms of the latent."""

    def __init__(self, logs: Path, clips: np.ndarray):
        """`clips` (n, 1, size, size, 3) uint8 of validation files."""
        super().__init__()
        self.logs, self.clips = logs / "rebuilt", clips

    def on_train_begin(self, logs=None):
        self.part, self.writer = autoencoder.reconstruction_model(self.model), tf.summary.create_file_writer(os.fsencode(self.logs))

    def on_epoch_end(self, epoch, logs=None):
        if "val_loss" not in (logs or {}):
            return
        before, after, *latent = (keras.ops.convert_to_numpy(out) for out in self.part(self.clips, training=False))
        pairs = np.concatenate([autoencoder.to_pixels(self.model, out) for out in (before, after)], axis=2)
        with self.writer.as_default(step=epoch):
            tf.summary.image("pictures, and what comes back", np.clip(pairs, 0, 255).astype(np.uint8), max_outputs=len(pairs))
            for name, values in zip(("mean", "log variance"), latent, strict=False):
                tf.summary.histogram(f"latent, {name}", values)
        self.writer.flush()


def write(logs: Path, model: keras.Model, predicted: pd.DataFrame, table: pd.DataFrame, cache: Cache, settings: Mapping[str, Any],
          metrics: Mapping[str, Any]) -> None:
    """Events of the test split under `logs/test`. `predicted` has probabilities;
    `table` is the prepared manifest."""
    test = predicted[predicted["split"] == "test"]
    writer = tf.summary.create_file_writer(os.fsencode(logs / "test"))
    with writer.as_default(step=0):
        if backend.tensorflow():
            _graph(model)
        _curve(test)
        _clips(test, table, cache)
        _settings(settings)
        for name in ("auc", "ap", "accuracy", "log_loss"):
            if metrics["test"][name] is not None:
                tf.summary.scalar(f"test_{name}", metrics["test"][name])
    writer.close()


def _graph(model: keras.Model) -> None:
    """The model's operations. Keras's own callback writes a summary of its layers instead, which TensorBoard cannot draw."""
    clip = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    tf.summary.graph(tf.function(lambda clip: model(clip, training=False)).get_concrete_function(clip).graph)


def _curve(test: pd.DataFrame) -> None:
    from tensorboard.plugins.pr_curve import summary

    curve = summary.pb("pr_curve", test["label"].to_numpy(bool), test["probability"].to_numpy(), num_thresholds=101)
    tf.summary.experimental.write_raw_pb(curve.SerializeToString(), step=0)


def _clips(test: pd.DataFrame, table: pd.DataFrame, cache: Cache) -> None:
    """A strip of frames for the first files of each class; the name says label and probability."""
    shas = dict(zip(table["path"], table["sha"], strict=True))
    for label, name in enumerate(("real", "fake")):
        for row in test[(test["label"] == label) & (test["frame"] == 0)].head(EXAMPLES).itertuples():
            clip = cache.load(shas[row.path])
            strip = np.concatenate(clip[np.linspace(0, len(clip) - 1, min(FRAMES, len(clip))).astype(int)], axis=1)
            text = f"{name}, {row.source}: probability of fake {row.probability:.3f}, score {row.score:.3f}"
            tf.summary.image(files.printable(f"{name}/{Path(row.path).name}"), strip[None], description=files.printable(text))


def _settings(settings: Mapping[str, Any]) -> None:
    from tensorboard.plugins.hparams import api

    flat = {f"{part}.{key}": value for part, values in settings.items() for key, value in values.items()}
    plain = {key: value if isinstance(value, bool | int | float) else files.printable(str(value)) for key, value in flat.items()}
    api.hparams(plain)


def projector(logs: Path, features: np.ndarray, table: pd.DataFrame, picture: Picture | None = None) -> None:
    """Features for TensorBoard's projector, in `logs/test`: it looks only where there are events, too, which `write` leaves.

    `features` (files, dimensions) are those of the rows of `table`, which has label, split, source and path; `picture` gives
    a row number's uint8 picture (height, width, 3) RGB. At most POINTS files, of both classes alike. ValueError where the two
    are of different length, or empty.
    """
    from tensorboard.plugins import projector as plugin

    if np.ndim(features) != 2 or len(features) != len(table) or not len(table):
        raise ValueError(f"Expected features (files, dimensions) of {len(table)} rows, at least one; got {np.shape(features)}.")
    folder, rows = logs / "test", balanced_sample(table["label"], POINTS)
    with files.atomic(folder / "features.tsv") as temporary:
        np.savetxt(temporary, features[rows], fmt="%.5g", delimiter="\t")
    files.write_bytes(folder / "files.tsv", _metadata(table.iloc[rows]).encode())
    config = plugin.ProjectorConfig()
    shown = config.embeddings.add(tensor_name="features", tensor_path="features.tsv", metadata_path="files.tsv")
    if picture:
        files.write_bytes(folder / "pictures.jpg", _sprite(rows, picture))
        shown.sprite.image_path = "pictures.jpg"
        shown.sprite.single_image_dim.extend([SIDE, SIDE])
    with files.plain(folder) as link:
        plugin.visualize_embeddings(link, config)  # last: it names the others


def _metadata(table: pd.DataFrame) -> str:
    """A line a file, under a header. What is no plain character, a tab or a line's end in a file's name above all, is a blank."""
    cells = {"label": table["label"].map({0: "real", 1: "fake"}), "split": table["split"], "source": table["source"],
             "file": [Path(path).name for path in table["path"]]}  # fmt: skip
    lines = [tuple(cells), *zip(*cells.values(), strict=True)]
    plain = [["".join(letter if letter.isprintable() else " " for letter in str(cell)) for cell in line] for line in lines]
    return "".join("\t".join(line) + "\n" for line in plain)


def _sprite(rows: np.ndarray, picture: Picture) -> bytes:
    """The rows' pictures in one JPEG, in lines of a square, as the projector cuts them."""
    from PIL import Image

    side = int(np.ceil(np.sqrt(len(rows))))
    whole = Image.new("RGB", (side * SIDE, side * SIDE), "white")
    for place, row in enumerate(rows):
        small = Image.fromarray(picture(int(row))).resize((SIDE, SIDE))
        whole.paste(small, (place % side * SIDE, place // side * SIDE))
    memory = io.BytesIO()
    whole.save(memory, format="JPEG", quality=85)
    return memory.getvalue()
