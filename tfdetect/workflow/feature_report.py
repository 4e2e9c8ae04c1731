"""What the report shows of stored features: where files lie in feature space, and whether features and pixels agree."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tfdetect.data.input_pipeline.dataset import expand_frames
from tfdetect.detector import Detector, ReportContext, ReportExtras
from tfdetect.evaluation import predictions
from tfdetect.evaluation.metrics import auc
from tfdetect.plots import features as plots
from tfdetect.serving.predictor import Predictor

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
    agreement = compare_with_pixels(context, rows, predictor)
    train = rows[rows["split"] == "train"]
    leaking = 0.0 if detector.text_template is None else share_of_telling_texts(train)
    by_split = probabilities_by_split(context.predictions)
    test = (rows["split"] == "test").to_numpy()
    features, labels = context.features.features[test], context.features.labels[test]
    tables = {"Splits and classes": plots.metrics_by_split(by_split, context.threshold),
              "Principal components of the features, test files": plots.explained_variance_table(features)}  # fmt: skip
    figures = {**feature_figures(context.model, features, labels),
               "Confusion in each split": plots.confusion_matrices(by_split, context.threshold)}  # fmt: skip
    found: dict[str, Any] = {"features_against_pixels": agreement}
    validation = (rows["split"] == "validation").to_numpy()
    weights = set_weights(context.model, context.features.features[validation], context.features.labels[validation])
    if len(weights):
        tables = {"Weight of each feature set, validation files": weights, **tables}
        figures = {"Weight of each feature set, validation files": plots.set_weights(weights), **figures}
        found["feature_sets"] = weights.to_dict("records")
    return ReportExtras(figures, tables, warnings(agreement, leaking), found)


def set_weights(model: Any, features: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return a row for each feature set of a model that joins several; no rows for other models.

    `share` is the standard deviation of what the set adds to the score of these files, divided by the sum over all sets. `alone`
    and `without` are the AUCs with all other sets, or with this one, at the mean of the training files; nothing is trained again.
    """
    import keras

    from tfdetect.models.layers.heads import SetScaling

    scaling = next((layer for layer in model.layers if isinstance(layer, SetScaling)), None)
    if scaling is None or not len(features):
        return pd.DataFrame()
    head = keras.Model(scaling.output, model.output)
    score = lambda x: keras.ops.convert_to_numpy(head(x))[:, 0]  # noqa: E731
    x = keras.ops.convert_to_numpy(scaling(features))
    full, rows = score(x), []
    for name, columns in scaling.parts():
        kept = np.zeros(x.shape[1], np.float32)
        kept[columns] = 1  # in scaled features, the mean of the training files is 0
        without = score(x * (1 - kept))
        rows.append([name, int(kept.sum()), (full - without).std(), auc(labels, score(x * kept)), auc(labels, without)])
    table = pd.DataFrame(rows, columns=["feature set", "features", "share", "AUC alone", "AUC without"])
    return table.assign(share=table["share"] / max(table["share"].sum(), 1e-12))


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
    frames = rows[test.to_numpy()].iloc[:CHECKED_FRAMES]
    clips = np.stack([context.load_clip(path)[frame : frame + 1] for path, frame in frames[["path", "frame"]].to_numpy()])
    pixels = np.column_stack(predictor.predict_clips(clips)[:2])
    score, probability = np.abs(pixels - stored[: len(pixels)]).max(axis=0)
    deviation = max(float(stored[:, 0].std()), 1e-9)
    return {"frames": len(frames), "score": float(score) / deviation, "probability": float(probability)}


def feature_figures(model: Any, features: np.ndarray, labels: np.ndarray) -> "dict[str, Figure]":
    """Return figures of where the test files lie, and for a triplet head of the distances between them."""
    layers = {layer.name for layer in model.layers}
    has_embedding = "embedding" in layers
    name, layer = next((each for each in (("embedding", "embedding"), ("scaled features", "scaled")) if each[1] in layers),
                       ("features", ""))  # fmt: skip
    points = embed(model, features, layer) if layer else features
    out = {
        f"Principal components of the {name}, test files": plots.pca(points, labels),
        f"Variance that the components of the {name} explain": plots.explained_variance(points),
        f"t-SNE of the {name}, test files": plots.tsne(points, labels, 0),
    }
    if has_embedding:
        distances = [triplet_distances(rows, labels) for rows in (features, points)]
        out["Distances of anchors to positives and negatives, test files"] = plots.distance_histograms(*distances)
    return out


def embed(model: Any, features: np.ndarray, layer: str) -> np.ndarray:
    """Features (rows, n) -> outputs (rows, m) of a layer behind them, such as the embedding of the triplet head."""
    import keras

    part = keras.Model(model.get_layer("features").output, model.get_layer(layer).output)
    return part.predict(features, batch_size=1024, verbose=0)


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
