"""Heads on the features of a frozen backbone: their layers, and how they are trained on features that were computed once.

A head is built on the output of the layer `features`, so it is part of the saved and served model. Some heads are fitted by
scikit-learn; the fitted values become weights, so serving does not need scikit-learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from tfdetect.detector import FeatureFitContext

Array: TypeAlias = np.ndarray
TextEncoder: TypeAlias = Callable[[Sequence[str]], Array]  # texts -> embeddings (texts, n) float32
MAX_TEXTS = 20_000  # distinct training texts that the served model chooses from


@dataclass(frozen=True)
class HeadSettings:
    """Which head, and its settings: fields that a detector inherits."""

    head: Literal["linear", "mlp", "logistic", "svm", "nearest", "triplet_svm", "prompts"] = "linear"
    """Classifier on the features; prompts is zero-shot, by the texts of real_prompts and fake_prompts."""
    text: Literal["none", "sum", "product"] = "none"
    """Combine each image embedding with its text embedding, elementwise; in inference, with the closest training text."""
    standardise: bool = True
    """linear, mlp on stored features, logistic, svm: standardise each feature by the training files' mean and deviation."""
    hidden: int = 768
    """mlp: units of the hidden layer."""
    C: float = 1.0
    """logistic, svm, triplet_svm: inverse regularisation strength, as in scikit-learn."""
    kernel: Literal["rbf", "linear"] = "rbf"
    """svm, triplet_svm: kernel."""
    k: int = 1
    """nearest: number of neighbours per class."""
    bank: int = 20_000
    """nearest: maximum number of training rows to keep, half of them per class."""
    condense: int = 0
    """nearest: keep this many k-means cluster centres per class instead of rows; 0 for rows."""
    projection: int = 128
    """triplet_svm: size of the embedding."""
    margin: float = 0.2
    """triplet_svm: triplet margin; unit vectors are at most 2 apart."""
    mining: Literal["random", "semihard", "hard"] = "semihard"
    """triplet_svm: which triplets of a batch count."""


def build_head(settings: HeadSettings, x: Any) -> Any:
    """Return the scores (batch, 1) of a randomly initialised head on features (batch, n)."""
    import keras
    from keras import layers

    from tfdetect.models.layers.common import score_layer
    from tfdetect.models.layers.heads import KNNMargin, SVMDecisionFunction

    if settings.head == "mlp":
        return score_layer(layers.Dense(settings.hidden, activation="relu", dtype="float32", name="hidden")(x))
    if settings.head == "svm":
        return SVMDecisionFunction(name="score")(x)
    if settings.head == "nearest":
        return KNNMargin(k=settings.k, name="score")(unit_normalise(x))
    if settings.head == "triplet_svm":
        return SVMDecisionFunction(name="score")(triplet_embedding(settings, x))
    if settings.head == "prompts":
        return layers.Dense(1, use_bias=False, dtype="float32", name="score")(unit_normalise(x))
    # Near zero: the few steps of a small data set would not undo larger random weights on hundreds of features.
    return score_layer(x, keras.initializers.RandomNormal(stddev=1e-3))


def unit_normalise(x: Any, name: str | None = None) -> Any:
    """Scale vectors (batch, n) to length 1."""
    from keras import layers

    return layers.UnitNormalization(dtype="float32", name=name)(x)


def triplet_embedding(settings: HeadSettings, x: Any) -> Any:
    """Return the unit vectors (batch, projection) that the triplet loss is computed on."""
    from keras import layers

    x = layers.Dense(settings.projection, dtype="float32", name="projection")(unit_normalise(x))
    return unit_normalise(x, "embedding")


def join_text(settings: HeadSettings, image: Any, text: Any) -> Any:
    """Combine image and text embeddings, (batch, n) each, into unit vectors (batch, n)."""
    from keras import layers

    combine = layers.Add if settings.text == "sum" else layers.Multiply
    return unit_normalise(combine(dtype="float32")([image, text]), "joined")


def join_closest_text(settings: HeadSettings, x: Any, texts: Sequence[str]) -> Any:
    """Combine image embeddings with the closest of `texts`, as the served model does; unchanged if the head uses no text."""
    from tfdetect.models.layers.heads import ClosestText

    if settings.text == "none":
        return x
    text, _ = ClosestText(texts, name="closest_text")(x)
    return join_text(settings, x, text)


def join_text_arrays(settings: HeadSettings, images: Array, texts: Array) -> Array:
    """`join_text` in NumPy."""
    from sklearn.preprocessing import normalize

    return normalize(images + texts if settings.text == "sum" else images * texts)


def fit_head(settings: HeadSettings, model: Any, context: FeatureFitContext, load_text_encoder: Callable[[], TextEncoder]) -> Any:
    """Return the model with a trained head.

    In training, each image is combined with its own text. `load_text_encoder` is called only if the head uses texts.
    """
    import keras

    features = model.get_layer("features").output
    x, validation = context.train.features, context.validation.features
    head_input = features
    if settings.text != "none":
        encode = load_text_encoder()
        texts = sorted({*context.train.texts})[:MAX_TEXTS]
        embeddings = encode(texts)
        head_input = join_closest_text(settings, features, texts)
        keras.Model(features, head_input).get_layer("closest_text").set_weights([embeddings])
        x, validation = (join_text_arrays(settings, table.features, encode(table.texts))
                         for table in (context.train, context.validation))  # fmt: skip
    score = fit_scores(settings, head_input, x, validation, context)
    return keras.Model(model.inputs, score, name=model.name)


def fit_scores(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext) -> Any:
    """Return the scores (batch, 1) of a trained head on the Keras tensor `head_input` (batch, n).

    `x` and `validation` are its values (rows, n) for the training and validation files.
    """
    return FITTERS.get(settings.head, fit_dense)(settings, head_input, x, validation, context)


# Each of the following functions fits one kind of head for `fit_scores`.


def fit_dense(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext) -> Any:
    """Fit linear or mlp by gradient descent, by default on standardised features.

    The raw features of a backbone share a mean that is large compared to the differences between classes, and would dominate the
    steps of Adam. The served head takes raw features: mean and scale are folded into its first layer.
    """
    import keras

    mean, scale = standardisation(settings, x)
    x, validation = (((rows - mean) / scale).astype(np.float32) for rows in (x, validation))
    inputs = keras.Input(x.shape[1:])
    head = keras.Model(inputs, build_head(settings, inputs))
    context.fit_by_gradient(head, x, context.train.labels, validation, context.validation.labels)
    kernel, bias, *other_weights = head.get_weights()
    kernel = kernel / scale[:, None]
    score = build_head(settings, head_input)
    keras.Model(head_input, score).set_weights([kernel, bias - mean @ kernel, *other_weights])
    return score


def fit_logistic(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext) -> Any:
    """Fit a logistic regression."""
    return linear_score(settings, head_input, *logistic_weights(settings, x, context.train.labels))


def logistic_weights(settings: HeadSettings, x: Array, labels: Array) -> tuple[Array, Array]:
    """Fit sklearn.linear_model.LogisticRegression on standardised features, with balanced class weights.

    Return kernel (n, 1) and bias (1,) of the log-odds of raw features.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = standardisation(settings, x)
    classifier = LogisticRegression(C=settings.C, max_iter=5000, class_weight="balanced")
    classifier.fit((x - mean) / scale, labels)
    kernel = classifier.coef_.T / scale[:, None]
    return kernel, classifier.intercept_ - mean @ kernel


def fit_average(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext,
                parts: Sequence[slice]) -> Any:
    """Fit a logistic regression on each of `parts`, columns of the features, and average their scores.

    Each score is divided by its standard deviation on the validation files, so that all count alike. A mean of classifiers that
    were fitted apart ranks other generators better than one classifier on everything (docs/generalisation.md).
    """
    kernels, bias = [], np.zeros(1)
    for columns in parts:
        kernel, offset = logistic_weights(settings, x[:, columns], context.train.labels)
        factor = 1 / (len(parts) * max((validation[:, columns] @ kernel).std(), 1e-12))
        kernels.append(kernel * factor)
        bias = bias + offset * factor
    return linear_score(settings, head_input, np.concatenate(kernels), bias)


def linear_score(settings: HeadSettings, head_input: Any, kernel: Array, bias: Array) -> Any:
    """Return the scores (batch, 1) of a linear head with these weights, (n, 1) and (1,)."""
    import keras

    score = build_head(settings, head_input)
    keras.Model(head_input, score).get_layer("score").set_weights([kernel, bias])
    return score


def fit_svm(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext) -> Any:
    """Fit sklearn.svm.SVC on standardised features, with balanced class weights."""
    import keras
    from sklearn.svm import SVC

    from tfdetect.models.layers.heads import SVMDecisionFunction

    mean, scale = standardisation(settings, x)
    x = (x - mean) / scale
    gamma = 1 / (x.shape[1] * x.var())  # scikit-learn's "scale"
    classifier = SVC(C=settings.C, kernel=settings.kernel, gamma=gamma, class_weight="balanced", cache_size=1000)
    classifier.fit(x, context.train.labels)
    vectors = classifier.support_vectors_
    score = SVMDecisionFunction(len(vectors), settings.kernel, gamma, name="score")(head_input)
    weights = [mean, scale, vectors, classifier.dual_coef_.T, classifier.intercept_]
    keras.Model(head_input, score).get_layer("score").set_weights(weights)
    return score


def standardisation(settings: HeadSettings, x: Array) -> tuple[Array, Array]:
    """Return what a head subtracts from each feature and what it divides it by."""
    return mean_and_std(x) if settings.standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))


def mean_and_std(x: Array) -> tuple[Array, Array]:
    """Return the mean and standard deviation of each feature in float64; 1 in place of the deviation of a constant feature."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x)
    return scaler.mean_, scaler.scale_


def fit_nearest(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext) -> Any:
    """Fill a memory bank per class with at most `bank` / 2 random rows, or with the centres of `condense` clusters."""
    import keras
    from sklearn.preprocessing import normalize

    from tfdetect.models.layers.heads import KNNMargin

    x = normalize(x)
    banks = [select_bank_rows(x[context.train.labels == label], settings, context.seed) for label in (0, 1)]
    score = KNNMargin(len(banks[0]), len(banks[1]), settings.k, name="score")(unit_normalise(head_input))
    keras.Model(head_input, score).get_layer("score").set_weights(banks)
    return score


def select_bank_rows(x: Array, settings: HeadSettings, seed: int) -> Array:
    """Return the rows of a class that its memory bank keeps, or cluster centres of unit length."""
    if settings.condense and len(x) > settings.condense:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.preprocessing import normalize

        clustering = MiniBatchKMeans(settings.condense, n_init=3, random_state=seed, batch_size=4096)
        return normalize(clustering.fit(x).cluster_centers_)
    limit = settings.bank // 2
    return x if len(x) <= limit else x[np.sort(np.random.default_rng(seed).choice(len(x), limit, replace=False))]


def fit_triplet_svm(settings: HeadSettings, head_input: Any, x: Array, validation: Array, context: FeatureFitContext) -> Any:
    """Train a projection with the triplet loss, then fit a support vector machine on the projected features."""
    import keras

    from tfdetect.models.layers.heads import TripletLoss

    embedding = triplet_embedding(settings, head_input)
    model = keras.Model(head_input, embedding)
    loss = TripletLoss(settings.margin, settings.mining)
    context.fit_by_gradient(model, x, context.train.labels, validation, context.validation.labels, loss)
    x, validation = (model.predict(rows, batch_size=1024, verbose=0) for rows in (x, validation))
    return fit_svm(settings, embedding, x, validation, context)


FITTERS = {"logistic": fit_logistic, "svm": fit_svm, "nearest": fit_nearest, "triplet_svm": fit_triplet_svm}
