"""A detector on stored features: judged by them, and shown with what it makes of them.

The backbone has seen each file once; its features go through the exported model's `serve_features`, and for a few files the
exported model from pixels must say the same.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.data.prepare.decode import usable
from tfdetect.detector import Detector
from tfdetect.evaluation import predictions
from tfdetect.plots import features as plots_features
from tfdetect.serving.predictor import Predictor
from tfdetect.training import tensorboard
from tfdetect.training.feature_extractor import FeatureExtractor
from tfdetect.workflow import results
from tfdetect.workflow.console import embedding
from tfdetect.workflow.scoring import batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKED = 16  # frames whose verdict from pixels is compared
CLOSE = 0.01  # between verdicts from pixels and from stored features: of a probability, and of the scores' deviation
TRIPLETS = 5000  # whose distances are drawn


def judge(predictor: Predictor, model: Any, detector: Detector, table: pd.DataFrame, cache: Cache,
          logs: Path) -> tuple[pd.DataFrame, results.ReportExtras]:
    """The predictions of validation and test, and what the report shows besides; TensorBoard's projector goes to `logs`."""
    judged = Judged(model, detector, predictor, table, cache)
    said, check = judged.predictions(), judged.check()
    tensorboard.projector(logs, judged.embedded.features, judged.rows, judged.picture)
    told = [] if getattr(detector, "text", "none") == "none" else [telling(judged.rows[judged.rows["split"] == "train"])]
    own = results.ReportExtras(judged.figures(), judged.tables(), warnings(check, *told), {"features_against_pixels": check})
    return said[said["split"] != "train"].reset_index(drop=True), own


def telling(rows: pd.DataFrame) -> float:
    """The part of the rows whose text stands with one label alone: from such a text the label could be read."""
    return float((rows.groupby("text")["label"].transform("nunique") == 1).mean())


def warnings(check: Mapping[str, Any], told: float = 0.0) -> tuple[str, ...]:
    """Sentences where features and pixels disagree, and where the texts tell the label."""
    texts = (f"{told:.0%} of the training pictures have a text that stands with reals alone or with fakes alone: the head may "
             "have learnt the texts. What is served picks texts by the picture: the test does not profit.",)  # fmt: skip
    found = texts if told > 0.5 else ()
    if max(check["score"], check["probability"]) <= CLOSE:
        return found
    return (*found, f"Verdicts from pixels and from stored features differ: over {check['frames']} test frames by up to "
            f"{check['probability']:.3f} in probability, and in score by {check['score']:.3f} of its standard deviation. The "
            "figures are those of the stored features.")  # fmt: skip


class Judged:
    """The features of all splits, and what the exported model says of them."""

    def __init__(self, model: Any, detector: Detector, predictor: Predictor, table: pd.DataFrame, cache: Cache):
        self.model, self.predictor, self.cache = model, predictor, cache
        good = usable(table)
        self.embedded = FeatureExtractor(self.model, detector, cache, embedding).of(good)
        self.rows = expand_frames(good, predictor.single).assign(row=np.arange(len(self.embedded.labels)))
        self.said = [np.concatenate(parts) for parts in zip(*self._answers(), strict=True)]

    def _answers(self):
        for start in range(0, len(self.rows), 1024):
            yield self.predictor.judge_features(self.embedded.features[start : start + 1024])

    def predictions(self) -> pd.DataFrame:
        """The predictions table of all splits, training files too."""
        out = self.rows[["path", "label", "group", "source", "split", "frame"]].copy()
        return predictions.add_probabilities(out.assign(score=np.float64(self.said[0])), self.predictor.calibration)

    def check(self) -> dict[str, Any]:
        """The largest differences between verdicts from pixels and from features, over a few test frames; that of the scores as a
        part of their standard deviation in the test."""
        test = self.rows[self.rows["split"] == "test"]
        rows = test.iloc[:CHECKED]
        pixels = [np.column_stack(self.predictor.judge(clips)[:2]) for _, clips in batches(rows, self.cache, True)]
        apart = np.abs(np.concatenate(pixels) - np.column_stack(self.said)[rows["row"]]).max(axis=0)
        spread = max(float(self.said[0][test["row"]].std()), 1e-9)
        return {"frames": len(rows), "score": float(apart[0]) / spread, "probability": float(apart[1])}

    def picture(self, number: int) -> np.ndarray:
        """A row's frame."""
        row = self.rows.iloc[number]
        return np.asarray(self.cache.load(row["sha"])[row["frame"]])

    def figures(self) -> "dict[str, Figure]":
        """Of the test files: where the features lie, and for triplets how far apart."""
        test = (self.rows["split"] == "test").to_numpy()
        labels, raw = self.embedded.labels[test], self.embedded.features[test]
        projected = [layer.name for layer in self.model.layers if layer.name == "embedding"]
        after = self._projected(raw) if projected else raw
        what = "embedding" if projected else "features"
        out = {
            f"Principal components of the {what}, test files": plots_features.pca(after, labels),
            f"Variance that the components of the {what} explain": plots_features.explained_variance(after),
            f"t-SNE of the {what}, test files": plots_features.tsne(after, labels, 0),
            "Confusion in each split": plots_features.confusion_matrices(self.parts(), self.predictor.threshold),
        }
        if projected:
            apart = plots_features.distance_histograms(*(triplets(rows, labels) for rows in (raw, after)))
            out["Distances of anchors to positives and negatives, test files"] = apart
        return out

    def _projected(self, features: np.ndarray) -> np.ndarray:
        """What triplets made of them."""
        import keras

        part = keras.Model(self.model.get_layer("features").output, self.model.get_layer("embedding").output)
        return part.predict(features, batch_size=1024, verbose=0)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Each split and class, and the components in numbers."""
        test = self.embedded.features[(self.rows["split"] == "test").to_numpy()]
        return {"Splits and classes": plots_features.metrics_by_split(self.parts(), self.predictor.threshold),
                "Principal components of the features, test files": plots_features.explained_variance_table(test)}  # fmt: skip

    def parts(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Label and probability of each file of a split; training files too, from stored features."""
        said, out = self.predictions(), {}
        for name in ("train", *predictions.SPLITS):
            files = predictions.by_file(said[said["split"] == name].assign(split="test"))  # that table knows no train
            if len(files):
                out[name] = files["label"].to_numpy(), files["probability"].to_numpy()
        return out


def triplets(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from anchors to a random positive and to a random negative, (k,) each, of directions: the rows' lengths do not
    count."""
    rng = np.random.default_rng(0)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    if min(map(len, classes)) < 2:
        return np.empty(0), np.empty(0)
    anchors = rng.integers(0, len(labels), TRIPLETS)
    same = np.array([rng.choice(classes[labels[anchor]]) for anchor in anchors])
    other = np.array([rng.choice(classes[1 - labels[anchor]]) for anchor in anchors])
    kept = same != anchors
    apart = [np.linalg.norm(unit[anchors] - unit[to], axis=1)[kept] for to in (same, other)]
    return apart[0], apart[1]
