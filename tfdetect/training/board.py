"""What TensorBoard shows of a judged run besides its curves: graph, PR curve, clips with their scores, hyper-parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfdetect import backend, models
from tfdetect.data.cache import Cache

EXAMPLES = 6  # of each class
FRAMES = 8  # of each clip, side by side


def write(logs: Path, model: Path, predicted: pd.DataFrame, table: pd.DataFrame, cache: Cache, settings: Mapping[str, Any],
          metrics: Mapping[str, Any]) -> None:
    """Events of the test split under `logs/test`. `model` is the .keras file; `predicted` has probabilities;
    `table` is the prepared manifest."""
    test = predicted[predicted["split"] == "test"]
    writer = tf.summary.create_file_writer(str(logs / "test"))
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


def _graph(path: Path) -> None:
    """The model's operations. Keras's own callback writes a summary of its layers instead, which TensorBoard cannot draw."""
    model = models.load(path)
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
            tf.summary.image(f"{name}/{Path(row.path).name}", strip[None], description=text)


def _settings(settings: Mapping[str, Any]) -> None:
    from tensorboard.plugins.hparams import api

    flat = {f"{part}.{key}": value for part, values in settings.items() for key, value in values.items()}
    api.hparams({key: value if isinstance(value, bool | int | float) else str(value) for key, value in flat.items()})
