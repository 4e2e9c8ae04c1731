"""Heads on a frozen backbone's features: what each looks like, and how it learns from features that were computed once.

A head is built on a Keras tensor, the output of the layer `features`, so that it is part of the model that is saved and
served. scikit-learn fits some of them; what it found becomes weights, and serving needs no scikit-learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tfdetect.detector import FeatureFitContext

TextEncoder = Callable[[Sequence[str]], np.ndarray]  # texts -> (texts, n) float32
TEXTS = 20_000  # of the training files at most, of which the served model picks


@dataclass(frozen=True)
class HeadSettings:
    """Which head, and its settings: fields that a detector inherits."""

    head: Literal["linear", "mlp", "logistic", "svm", "nearest", "triplet_svm", "prompts"] = "linear"
    """What tells real from fake by the features; prompts is zero-shot, by the texts of real_prompts and fake_prompts."""
    text: Literal["none", "sum", "product"] = "none"
    """Join each picture with its text, element by element; once trained, with the closest of the training texts."""
    standardise: bool = True
    """linear, mlp on stored features: bring each to mean 0 and deviation 1 of the training files first."""
    hidden: int = 768
    """mlp: units of its hidden layer."""
    C: float = 1.0
    """logistic, svm, triplet_svm: the inverse of the regularisation, as scikit-learn has it."""
    kernel: Literal["rbf", "linear"] = "rbf"
    """svm, triplet_svm: the kernel."""
    k: int = 1
    """nearest: so many neighbours of each class."""
    bank: int = 20_000
    """nearest: training rows that are kept at most, half of them of each class."""
    condense: int = 0
    """nearest: keep the centres of so many clusters of each class instead; 0 for none."""
    projection: int = 128
    """triplet_svm: numbers of the embedding."""
    margin: float = 0.2
    """triplet_svm: how much farther than a positive a negative is to be; unit vectors are 2 apart at most."""
    mining: Literal["random", "semihard", "hard"] = "semihard"
    """triplet_svm: which triplets of a batch count."""


def build_head(settings: HeadSettings, x: Any) -> Any:
    """Features (batch, n) -> scores (batch, 1), with random weights."""
    import keras
    from keras import layers

    from tfdetect.models.layers.common import score
    from tfdetect.models.layers.heads import KNNMargin, SupportVectors

    if settings.head == "mlp":
        return score(layers.Dense(settings.hidden, activation="relu", dtype="float32", name="hidden")(x))
    if settings.head == "svm":
        return SupportVectors(name="score")(x)
    if settings.head == "nearest":
        return KNNMargin(k=settings.k, name="score")(unit_normalise(x))
    if settings.head == "triplet_svm":
        return SupportVectors(name="score")(triplet_embedding(settings, x))
    if settings.head == "prompts":
        return layers.Dense(1, use_bias=False, dtype="float32", name="score")(unit_normalise(x))
    # Near zero: what chance puts on hundreds of features, the steps of a small set would not take away.
    return score(x, keras.initializers.RandomNormal(stddev=1e-3))


def unit_normalise(x: Any, name: str | None = None) -> Any:
    """Vectors (batch, n) -> the same of length 1."""
    from keras import layers

    return layers.UnitNormalization(dtype="float32", name=name)(x)


def triplet_embedding(settings: HeadSettings, x: Any) -> Any:
    """Features -> the unit vectors that triplets pull together and apart, (batch, projection)."""
    from keras import layers

    x = layers.Dense(settings.projection, dtype="float32", name="projection")(unit_normalise(x))
    return unit_normalise(x, "embedding")


def join_text(settings: HeadSettings, image: Any, text: Any) -> Any:
    """Embeddings of a picture and of a text, (batch, n) each -> (batch, n) of length 1."""
    from keras import layers

    how = layers.Add if settings.text == "sum" else layers.Multiply
    return unit_normalise(how(dtype="float32")([image, text]), "joined")


def join_closest_text(settings: HeadSettings, x: Any, texts: Sequence[str]) -> Any:
    """Image embeddings joined with the closest of `texts`, as the model is served; without text, as they are."""
    from tfdetect.models.layers.heads import ClosestText

    if settings.text == "none":
        return x
    text, _ = ClosestText(texts, name="closest_text")(x)
    return join_text(settings, x, text)


def fit_head(settings: HeadSettings, model: Any, context: FeatureFitContext, text_encoder: Callable[[], TextEncoder]) -> Any:
    """The model with a trained head. In training each picture is joined with its own text; `text_encoder` makes what embeds
    them."""
    import keras

    features = model.get_layer("features").output
    x, validation = context.train.features, context.validation.features
    read = features
    if settings.text != "none":
        embed = text_encoder()
        texts = sorted({*context.train.texts})[:TEXTS]
        known = dict(zip(texts, embed(texts), strict=True))
        read = join_closest_text(settings, features, texts)
        keras.Model(features, read).get_layer("closest_text").set_weights([np.stack([*known.values()])])
        x, validation = (join_text_arrays(settings, part.features, embed(part.texts)) for part in (context.train, context.validation))
    out = FITTERS.get(settings.head, by_gradients)(settings, read, x, validation, context)
    return keras.Model(model.inputs, out, name=model.name)


def join_text_arrays(settings: HeadSettings, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """As `join_text`, in NumPy."""
    both = images + texts if settings.text == "sum" else images * texts
    return both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)


def by_gradients(settings: HeadSettings, read: Any, x: np.ndarray, validation: np.ndarray, context: FeatureFitContext) -> Any:
    """linear and mlp, by default on standardised features: raw ones of a backbone share a mean that is large beside what tells
    them apart, and steps of Adam go there. What is served takes them raw: mean and scale are folded into the first layer."""
    import keras

    mean, scale = mean_and_std(x) if settings.standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    x, validation = (((part - mean) / scale).astype(np.float32) for part in (x, validation))
    inputs = keras.Input(x.shape[1:])
    learning = keras.Model(inputs, build_head(settings, inputs))
    context.fit_by_gradient(learning, x, context.train.labels, validation, context.validation.labels)
    kernel, bias, *rest = learning.get_weights()
    kernel = kernel / scale[:, None]
    out = build_head(settings, read)
    keras.Model(read, out).set_weights([kernel, bias - mean @ kernel, *rest])
    return out


def logistic(settings: HeadSettings, read: Any, x: np.ndarray, validation: np.ndarray, context: FeatureFitContext) -> Any:
    """sklearn.linear_model.LogisticRegression on standardised features, classes weighted alike."""
    import keras
    from sklearn.linear_model import LogisticRegression

    mean, scale = mean_and_std(x)
    found = LogisticRegression(C=settings.C, max_iter=5000, class_weight="balanced").fit((x - mean) / scale, context.train.labels)
    kernel = found.coef_.T / scale[:, None]
    out = build_head(settings, read)
    keras.Model(read, out).get_layer("score").set_weights([kernel, found.intercept_ - mean @ kernel])
    return out


def svm(settings: HeadSettings, read: Any, x: np.ndarray, validation: np.ndarray, context: FeatureFitContext) -> Any:
    """sklearn.svm.SVC on standardised features, classes weighted alike."""
    import keras
    from sklearn.svm import SVC

    from tfdetect.models.layers.heads import SupportVectors

    mean, scale = mean_and_std(x)
    gamma = 1 / x.shape[1]  # what gamma="scale" comes to here
    machine = SVC(C=settings.C, kernel=settings.kernel, gamma=gamma, class_weight="balanced", cache_size=1000)
    found = machine.fit((x - mean) / scale, context.train.labels)
    vectors = found.support_vectors_
    out = SupportVectors(len(vectors), settings.kernel, gamma, name="score")(read)
    keras.Model(read, out).get_layer("score").set_weights([mean, scale, vectors, found.dual_coef_.T, found.intercept_])
    return out


def mean_and_std(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature in float64; 1 for one that is always the same."""
    scale = x.std(axis=0, dtype=np.float64)
    return x.mean(axis=0, dtype=np.float64), np.where(scale > 1e-9, scale, 1.0)


def nearest(settings: HeadSettings, read: Any, x: np.ndarray, validation: np.ndarray, context: FeatureFitContext) -> Any:
    """A memory bank of each class: at most `bank` rows by chance, or the centres of `condense` clusters (k-means)."""
    import keras

    from tfdetect.models.layers.heads import KNNMargin

    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    banks = [memory_bank(x[context.train.labels == label], settings, context.seed) for label in (0, 1)]
    out = KNNMargin(len(banks[0]), len(banks[1]), settings.k, name="score")(unit_normalise(read))
    keras.Model(read, out).get_layer("score").set_weights(banks)
    return out


def memory_bank(x: np.ndarray, settings: HeadSettings, seed: int) -> np.ndarray:
    """The rows of a class that its memory bank holds."""
    if settings.condense and len(x) > settings.condense:
        from sklearn.cluster import MiniBatchKMeans

        found = MiniBatchKMeans(settings.condense, n_init=3, random_state=seed, batch_size=4096).fit(x).cluster_centers_
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    most = settings.bank // 2
    return x if len(x) <= most else x[np.sort(np.random.default_rng(seed).choice(len(x), most, replace=False))]


def triplet_svm(settings: HeadSettings, read: Any, x: np.ndarray, validation: np.ndarray, context: FeatureFitContext) -> Any:
    """A projection by triplets, then a support vector machine on what it projects to."""
    import keras

    from tfdetect.models.layers.heads import TripletLoss

    embedding = triplet_embedding(settings, read)
    model = keras.Model(read, embedding)
    context.fit_by_gradient(model, x, context.train.labels, validation, context.validation.labels, TripletLoss(settings.margin, settings.mining))
    x, validation = (model.predict(part, batch_size=1024, verbose=0) for part in (x, validation))
    return svm(settings, embedding, x, validation, context)


FITTERS = {"logistic": logistic, "svm": svm, "nearest": nearest, "triplet_svm": triplet_svm}
