"""What TensorBoard shows besides the training curves: graph, PR curve, clips with their scores and heat-maps, hyper-parameters,
the figures and tables of the report's extras, and features in its projector."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tfdetect import files, versions
from tfdetect.data.media.frames import evenly_spaced
from tfdetect.detector import ReportContext
from tfdetect.evaluation import predictions
from tfdetect.models import autoencoder
from tfdetect.plots.features import balanced_sample

EXAMPLES_PER_CLASS = 6
HEAT_MAPS_PER_CLASS = 2  # of the examples
FRAMES_PER_CLIP = 8  # shown side by side
POINTS = 5000  # in the projector, which browsers still turn smoothly
SIDE = 48  # pixels of a point's image: 71 x 71 of them stay below the 8192 pixels that browsers draw
ImageLoader = Callable[[int], np.ndarray]
MapDrawer = Callable[[np.ndarray], tuple[bytes, str] | None]


class ReconstructionImages(keras.callbacks.Callback):
    """Log images beside their reconstructions, and histograms of the latent, after each validation of an autoencoder."""

    def __init__(self, logs: Path, clips: np.ndarray):
        """`clips` are validation files, (n, 1, size, size, 3) uint8."""
        super().__init__()
        self.logs, self.clips = logs / "reconstructions", clips

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.part = autoencoder.reconstruction_model(self.model)
        self.writer = tf.summary.create_file_writer(os.fsencode(self.logs))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if "val_loss" not in (logs or {}):
            return
        outputs = (keras.ops.convert_to_numpy(output) for output in self.part(self.clips, training=False))
        images, reconstructions, *latent = outputs
        pairs = np.concatenate([autoencoder.to_pixels(self.model, out) for out in (images, reconstructions)], axis=2)
        with self.writer.as_default(step=epoch):
            tf.summary.image("images and reconstructions", np.clip(pairs, 0, 255).astype(np.uint8), max_outputs=len(pairs))
            for name, values in zip(("mean", "log variance"), latent, strict=False):
                tf.summary.histogram(f"latent {name}", values)
        self.writer.flush()


def write(logs: Path, context: ReportContext, figures: Mapping[str, Path], tables: Mapping[str, pd.DataFrame],
          settings: Mapping[str, Any], metrics: Mapping[str, Any], graph: tf.Graph | None = None,
          draw_map: MapDrawer | None = None) -> None:  # fmt: skip
    """Write events about the test split to `logs/test`.

    `figures`, as PNG files, and `tables` are those that the report shows besides the standard ones. `settings` are
    those of the run, by section; `graph` holds the model's operations: Keras' own callback writes a summary of its layers, which
    TensorBoard cannot draw. `draw_map` maps a clip (frames, height, width, 3) uint8 to a PNG with its heat-map and a description.
    """
    test = context.predictions[context.predictions["split"] == "test"]
    writer = tf.summary.create_file_writer(os.fsencode(logs / "test"))
    with writer.as_default(step=0):
        if graph:
            tf.summary.graph(graph)
        _curve(predictions.combine_frames(test))
        _clips(test, context.load_clip, draw_map)
        _settings(settings, run_name(logs))
        for name, path in figures.items():
            tf.summary.image(name, tf.io.decode_png(path.read_bytes(), channels=3)[None])
        for name, table in tables.items():
            tf.summary.text(name, _markdown(table))
        for name in ("auc", "ap", "accuracy", "log_loss"):
            if metrics["test"][name] is not None:
                tf.summary.scalar(f"test_{name}", metrics["test"][name])
        for name, row in metrics.get("stress", {}).items():
            tf.summary.scalar(f"test_auc_after/{name}", row["auc"])
    writer.close()
    if context.features is not None:
        frames, keys = context.predictions.reset_index(drop=True), predictions.clip_keys(context.predictions)
        projector(logs, context.features.features, frames,
                  lambda row: context.load_clip(*keys[row])[frames.at[row, "frame"]])  # fmt: skip


def _markdown(table: pd.DataFrame) -> str:
    """A table as TensorBoard's text plugin renders it."""
    rows = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    cells = [[files.printable(str(cell)).replace("|", "/") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _curve(test: pd.DataFrame) -> None:
    """Precision and recall of the test files, as in the report."""
    from tensorboard.plugins.pr_curve import summary

    curve = summary.pb("pr_curve", test["label"].to_numpy(bool), test["probability"].to_numpy(), num_thresholds=101)
    tf.summary.experimental.write_raw_pb(curve.SerializeToString(), step=0)


def _clips(test: pd.DataFrame, load_clip: Callable[..., np.ndarray], draw_map: MapDrawer | None) -> None:
    """A strip of frames for the first files, or faces, of each class, described by label and probability, and heat-maps of some
    of them."""
    for label, name in enumerate(("real", "fake")):
        rows = test[(test["label"] == label) & (test["frame"] == 0)].head(EXAMPLES_PER_CLASS)
        for number, (row, key) in enumerate(zip(rows.itertuples(), predictions.clip_keys(rows), strict=True)):
            clip = load_clip(*key)
            strip = np.concatenate(clip[list(evenly_spaced(len(clip), min(FRAMES_PER_CLIP, len(clip))))], axis=1)
            text = f"{name}, {row.source}: probability of fake {row.probability:.3f}, score {row.score:.3f}"
            tag = files.printable(f"{name}/{Path(row.path).name}")
            tf.summary.image(tag, strip[None], description=files.printable(text))
            if draw_map and number < HEAT_MAPS_PER_CLASS and (drawn := draw_map(clip)):
                picture = tf.io.decode_png(drawn[0], channels=3)[None]
                tf.summary.image(f"heat-maps/{tag}", picture, description=files.printable(f"{text}. {drawn[1]}"))


def run_name(logs: Path) -> str:
    """Return the name of the run in TensorBoard's table of hyper-parameters, which merges runs that have the same one: the name
    of its folder, after that of the folder around it unless that is saved_models."""
    folder = logs.absolute().parent
    name, parent = versions.title(folder), versions.base(folder).parent.name
    return files.printable(name if parent == "saved_models" else f"{parent}/{name}")


def _settings(settings: Mapping[str, Any], name: str) -> None:
    from tensorboard.plugins.hparams import api

    flat = {f"{part}.{key}": value for part, values in settings.items() for key, value in values.items()}
    plain = {key: value if isinstance(value, bool | int | float) else files.printable(str(value)) for key, value in flat.items()}
    api.hparams(plain, trial_id=name)


def projector(logs: Path, features: np.ndarray, table: pd.DataFrame, load_image: ImageLoader | None = None) -> None:
    """Write features for TensorBoard's projector to `logs/test`, where it finds them once `write` has left events there.

    `features` (rows, dimensions) belong to the rows of `table`, which has label, split, source and path; `load_image` maps a row
    number to a uint8 image (height, width, 3) RGB. At most POINTS rows are written, of both classes. Raises ValueError if the
    two differ in length or are empty.
    """
    from tensorboard.plugins import projector as plugin

    if np.ndim(features) != 2 or len(features) != len(table) or not len(table):
        raise ValueError(f"Expected features (rows, dimensions) of {len(table)} rows, at least one; got {np.shape(features)}.")
    folder, rows = logs / "test", balanced_sample(table["label"], POINTS)
    with files.atomic_write(folder / "features.tsv") as temporary:
        np.savetxt(temporary, features[rows], fmt="%.5g", delimiter="\t")
    files.write_bytes(folder / "files.tsv", _metadata(table.iloc[rows]).encode())
    config = plugin.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="features", tensor_path="features.tsv", metadata_path="files.tsv")
    if load_image:
        files.write_bytes(folder / "images.jpg", _sprite(rows, load_image))
        embedding.sprite.image_path = "images.jpg"
        embedding.sprite.single_image_dim.extend([SIDE, SIDE])
    with files.tensorflow_path(folder) as link:
        plugin.visualize_embeddings(link, config)  # last, since it names the other files


def _metadata(table: pd.DataFrame) -> str:
    """A header and a line per row. Characters that are not printable, such as a tab in a file name, become blanks."""
    cells = {"label": table["label"].map({0: "real", 1: "fake"}), "split": table["split"], "source": table["source"],
             "file": [Path(path).name for path in table["path"]]}  # fmt: skip
    lines = [tuple(cells), *zip(*cells.values(), strict=True)]
    plain = [["".join(letter if letter.isprintable() else " " for letter in str(cell)) for cell in line] for line in lines]
    return "".join("\t".join(line) + "\n" for line in plain)


def _sprite(rows: np.ndarray, load_image: ImageLoader) -> bytes:
    """All images in one JPEG, row by row in a square, as the projector expects them."""
    side = int(np.ceil(np.sqrt(len(rows))))
    sprite = np.full((side * SIDE, side * SIDE, 3), 255, np.uint8)
    for place, row in enumerate(rows):
        y, x = place // side * SIDE, place % side * SIDE
        sprite[y : y + SIDE, x : x + SIDE] = cv2.resize(load_image(int(row)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", sprite[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
