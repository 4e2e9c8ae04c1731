"""What the report shows of stored features: where files lie in feature space, and whether features and pixels agree."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.detector import Detector, ReportContext, ReportExtras
from tfdetect.evaluation import metrics, predictions
from tfdetect.plots import features as plots
from tfdetect.serving.predictor import Predictor
from tfdetect.workflow.set_weights import weights_of_sets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKED_FRAMES = 16  # test frames that are scored from pixels as well
TOLERANCE = 0.01  # between scores from pixels and from features: in probability, and in standard deviations of the score
TRIPLETS = 5000  # whose distances are drawn


def report_extras(detector: Detector, context: ReportContext, predictor: Predictor) -> ReportExtras:
    """Return figures, tables and warnings about `context.features`; nothing if there are none."""
    if context.features is None:
        return ReportExtras()
    rows = expand_frames(context.files, predictor.is_frame_detector)
    pool = ThreadPoolExecutor(1)  # TensorFlow computes while the figures are drawn
    comparison = pool.submit(compare_with_pixels, context, rows, predictor)
    train = rows[rows["split"] == "train"]
    leaking = 0.0 if detector.text_template is None else share_of_telling_texts(train)
    by_split = probabilities_by_split(context.predictions)
    test = (rows["split"] == "test").to_numpy()
    features, labels = context.features.features[test], context.features.labels[test]
    points = {"features": features, **embed(context.model, features)}
    fitted = {name: plots.fit_pca(rows) for name, rows in points.items()}
    components = pd.concat({name: plots.explained_variance_table(rows, fitted[name]) for name, rows in points.items()})
    components = components.droplevel(1).rename_axis("of").reset_index()
    tables = {"Splits and classes": plots.metrics_by_split(by_split, context.threshold),
              "Principal components, test files": components}  # fmt: skip
    distances = {name: triplet_distances(rows, labels) for name, rows in points.items()} if len(points) > 1 else {}
    figures = {**feature_figures(points, fitted, labels, distances),
               "Confusion in each split": plots.confusion_matrices(by_split, context.threshold),
               "Accuracy, precision, recall and F1 in each split": plots.metric_bars(by_split, context.threshold)}  # fmt: skip
    agreement = comparison.result()
    found = {"features_against_pixels": agreement, "train": summarise(*by_split["train"], context.threshold),
             "principal_components": components.set_index("of").to_dict("index"),
             "triplet_distances": {name: describe_distances(*pair) for name, pair in distances.items()}}  # fmt: skip
    extras = ReportExtras(figures, tables, warnings(agreement, leaking), found)
    validation = (rows["split"] == "validation").to_numpy()
    return weights_of_sets(context.model, context.features.features[validation], context.features.labels[validation]) | extras


def share_of_telling_texts(rows: pd.DataFrame) -> float:
    """Return the share of rows whose text occurs with one label only, so that it gives the label away."""
    return float((rows.groupby("text")["label"].transform("nunique") == 1).mean())


def warnings(agreement: Mapping[str, Any], leaking: float = 0.0) -> tuple[str, ...]:
    """Warn if features and pixels disagree, and if the texts give the label away."""
    texts = (f"{leaking:.0%} of the training images have a text that occurs with only real or only fake images, so the head may "
             "have learned the texts. The exported model picks texts by the image, so the test does not profit.",)  # fmt: skip
    out = texts if leaking > 0.5 else ()
    if max(agreement["score"], agreement["probability"]) <= TOLERANCE:
        return out
    return (*out, f"Scores from pixels and from stored features differ: over {agreement['frames']} test frames by up to "
            f"{agreement['probability']:.3f} in probability and {agreement['score']:.3f} standard deviations of the score. The "
            "figures are those of the stored features.")  # fmt: skip


def compare_with_pixels(context: ReportContext, rows: pd.DataFrame, predictor: Predictor) -> dict[str, Any]:
    """Return the largest differences between scores from pixels and from features over a few test frames; that of the score in
    units of its standard deviation over the test."""
    test = context.predictions["split"] == "test"
    stored = context.predictions.loc[test, ["score", "probability"]].to_numpy()
    count = CHECKED_FRAMES if predictor.is_frame_detector else max(1, CHECKED_FRAMES // predictor.spec.frames)
    checked = rows[test.to_numpy()].iloc[:count]
    files = zip((context.load_clip(*key) for key in predictions.clip_keys(checked)), checked["frame"], strict=True)
    clips = np.stack([clip[frame : frame + 1] if predictor.is_frame_detector else clip for clip, frame in files])
    pixels = np.column_stack(predictor.predict_clips(clips)[:2])
    score, probability = np.abs(pixels - stored[: len(pixels)]).max(axis=0)
    deviation = max(float(stored[:, 0].std()), 1e-9)
    return {"frames": clips.shape[0] * clips.shape[1], "score": float(score) / deviation, "probability": float(probability)}


def feature_figures(points: Mapping[str, np.ndarray], fitted: Mapping[str, Any], labels: np.ndarray,
                    distances: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> "dict[str, Figure]":  # fmt: skip
    """Return figures of where the test files lie, and for a triplet head of the distances between them.

    `points` are the features (files, n) and for a triplet head the embedding (files, m); the last one is drawn. `fitted` are the
    principal components of both; `distances` are those of `triplet_distances`, or empty.
    """
    name, rows = [*points.items()][-1]
    out = {
        f"Principal components of the {name}, test files": plots.pca(rows, labels, fitted[name]),
        f"Variance that the components of the {name} explain": plots.explained_variance(rows, fitted[name]),
        f"t-SNE of the {name}, test files": plots.tsne(rows, labels, 0, fitted[name]),
    }
    if distances:
        out["Distances of anchors to positives and negatives, test files"] = plots.distance_histograms(*distances.values())
    return out


def embed(model: Any, features: np.ndarray) -> dict[str, np.ndarray]:
    """Return {"embedding": (rows, m)} of features (rows, n) by a triplet head; nothing for another head."""
    import keras

    if all(layer.name != "embedding" for layer in model.layers):
        return {}
    part = keras.Model(model.get_layer("features").output, model.get_layer("embedding").output)
    return {"embedding": keras.ops.convert_to_numpy(part(features))}


def describe_distances(positive: np.ndarray, negative: np.ndarray) -> dict[str, float]:
    """Return the mean distances (triplets,) to a positive and to a negative, and the share of anchors closer to the positive."""
    if not len(positive):
        return {}
    return {"positive": float(positive.mean()), "negative": float(negative.mean()),
            "closer_to_positive": float((positive < negative).mean())}  # fmt: skip


def summarise(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, Any]:
    """Return the metrics of the training files that a published table may state, by the names of the other splits' metrics."""
    return {"n": len(labels), "threshold": threshold, "auc": metrics.auc(labels, probabilities),
            "log_loss": metrics.log_loss(labels, probabilities),
            **metrics.decision_metrics(labels, probabilities, threshold)}  # fmt: skip


def probabilities_by_split(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return label and probability of each file, by split; training files included."""
    out = {}
    for name in ("train", *predictions.SPLITS):
        files = predictions.by_file(table[table["split"] == name].assign(split="test"))  # a predictions table has no train split
        if len(files):
            out[name] = files["label"].to_numpy(), files["probability"].to_numpy()
    return out


def triplet_distances(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distances from random anchors to a random positive and to a random negative, (k,) each, between the rows scaled to
    unit length."""
    from sklearn.preprocessing import normalize

    rng, unit = np.random.default_rng(0), normalize(rows)
    classes = [np.flatnonzero(labels == label) for label in (0, 1)]
    if min(map(len, classes)) < 2:
        return np.empty(0), np.empty(0)
    anchors = rng.integers(0, len(labels), TRIPLETS)
    positives = np.array([rng.choice(classes[labels[anchor]]) for anchor in anchors])
    negatives = np.array([rng.choice(classes[1 - labels[anchor]]) for anchor in anchors])
    valid = positives != anchors
    to_positive, to_negative = (np.linalg.norm(unit[anchors] - unit[to], axis=1)[valid] for to in (positives, negatives))
    return to_positive, to_negative
