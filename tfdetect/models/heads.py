"""Heads on a frozen backbone's features: what each looks like, and how it learns from features that were computed once.

A head is built on a Keras tensor, the output of the layer `features`, so that it is part of the model that is saved and
served. scikit-learn fits some of them; what it found becomes weights, and serving needs no scikit-learn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdetect.detector import Lesson

if TYPE_CHECKING:
    from tfdetect.models.clip import Clip

TEXTS = 20_000  # of the training files at most, of which the served model picks


def untrained(detector: "Clip", x: Any) -> Any:
    """Features (batch, n) -> scores (batch, 1), with random weights."""
    import keras
    from keras import layers

    from tfdetect.models.head_layers import Nearest, SupportVectors
    from tfdetect.models.layers import score

    if detector.head == "mlp":
        return score(layers.Dense(detector.hidden, activation="relu", dtype="float32", name="hidden")(x))
    if detector.head == "svm":
        return SupportVectors(name="score")(x)
    if detector.head == "nearest":
        return Nearest(k=detector.k, name="score")(unit(x))
    if detector.head == "triplet_svm":
        return SupportVectors(name="score")(projected(detector, x))
    if detector.head == "prompts":
        return layers.Dense(1, use_bias=False, dtype="float32", name="score")(unit(x))
    # Near zero: what chance puts on hundreds of features, the steps of a small set would not take away.
    return score(x, keras.initializers.RandomNormal(stddev=1e-3))


def unit(x: Any, name: str | None = None) -> Any:
    """Vectors (batch, n) -> the same of length 1."""
    from keras import layers

    return layers.UnitNormalization(dtype="float32", name=name)(x)


def projected(detector: "Clip", x: Any) -> Any:
    """Features -> the unit vectors that triplets pull together and apart, (batch, projection)."""
    from keras import layers

    x = layers.Dense(detector.projection, dtype="float32", name="projection")(unit(x))
    return unit(x, "embedding")


def joined(detector: "Clip", image: Any, text: Any) -> Any:
    """Embeddings of a picture and of a text, (batch, n) each -> (batch, n) of length 1."""
    from keras import layers

    how = layers.Add if detector.text == "sum" else layers.Multiply
    return unit(how(dtype="float32")([image, text]), "joined")


def worded(detector: "Clip", x: Any, texts: Sequence[str]) -> Any:
    """Image embeddings joined with the closest of `texts`, as the model is served; without text, as they are."""
    from tfdetect.models.head_layers import ClosestText

    if detector.text == "none":
        return x
    text, _ = ClosestText(texts, name="closest_text")(x)
    return joined(detector, x, text)


def learn(detector: "Clip", model: Any, lesson: Lesson) -> Any:
    """The model with a head that has learnt. In training each picture is joined with its own text."""
    import keras

    features = model.get_layer("features").output
    x, held = lesson.train.features, lesson.held.features
    read = features
    if detector.text != "none":
        embed = detector.texts()
        texts = sorted({*lesson.train.texts})[:TEXTS]
        known = dict(zip(texts, embed(texts), strict=True))
        read = worded(detector, features, texts)
        keras.Model(features, read).get_layer("closest_text").set_weights([np.stack([*known.values()])])
        x, held = (own(detector, part.features, embed(part.texts)) for part in (lesson.train, lesson.held))
    out = LEARNT.get(detector.head, by_gradients)(detector, read, x, held, lesson)
    return keras.Model(model.inputs, out, name=model.name)


def own(detector: "Clip", images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """As `joined`, in NumPy."""
    both = images + texts if detector.text == "sum" else images * texts
    return both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)


def by_gradients(detector: "Clip", read: Any, x: np.ndarray, held: np.ndarray, lesson: Lesson) -> Any:
    """linear and mlp, by default on standardised features: raw ones of a backbone share a mean that is large beside what tells
    them apart, and steps of Adam go there. What is served takes them raw: mean and scale are folded into the first layer."""
    import keras

    mean, scale = spread(x) if detector.standardise else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
    x, held = (((part - mean) / scale).astype(np.float32) for part in (x, held))
    inputs = keras.Input(x.shape[1:])
    learning = keras.Model(inputs, untrained(detector, inputs))
    lesson.descend(learning, x, lesson.train.labels, held, lesson.held.labels)
    kernel, bias, *rest = learning.get_weights()
    kernel = kernel / scale[:, None]
    out = untrained(detector, read)
    keras.Model(read, out).set_weights([kernel, bias - mean @ kernel, *rest])
    return out


def logistic(detector: "Clip", read: Any, x: np.ndarray, held: np.ndarray, lesson: Lesson) -> Any:
    """sklearn.linear_model.LogisticRegression on standardised features, classes weighted alike."""
    import keras
    from sklearn.linear_model import LogisticRegression

    mean, scale = spread(x)
    found = LogisticRegression(C=detector.C, max_iter=5000, class_weight="balanced").fit((x - mean) / scale, lesson.train.labels)
    kernel = found.coef_.T / scale[:, None]
    out = untrained(detector, read)
    keras.Model(read, out).get_layer("score").set_weights([kernel, found.intercept_ - mean @ kernel])
    return out


def svm(detector: "Clip", read: Any, x: np.ndarray, held: np.ndarray, lesson: Lesson) -> Any:
    """sklearn.svm.SVC on standardised features, classes weighted alike."""
    import keras
    from sklearn.svm import SVC

    from tfdetect.models.head_layers import SupportVectors

    mean, scale = spread(x)
    gamma = 1 / x.shape[1]  # what gamma="scale" comes to here
    machine = SVC(C=detector.C, kernel=detector.kernel, gamma=gamma, class_weight="balanced", cache_size=1000)
    found = machine.fit((x - mean) / scale, lesson.train.labels)
    vectors = found.support_vectors_
    out = SupportVectors(len(vectors), detector.kernel, gamma, name="score")(read)
    keras.Model(read, out).get_layer("score").set_weights([mean, scale, vectors, found.dual_coef_.T, found.intercept_])
    return out


def spread(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature in float64; 1 for one that is always the same."""
    scale = x.std(axis=0, dtype=np.float64)
    return x.mean(axis=0, dtype=np.float64), np.where(scale > 1e-9, scale, 1.0)


def nearest(detector: "Clip", read: Any, x: np.ndarray, held: np.ndarray, lesson: Lesson) -> Any:
    """A memory bank of each class: at most `bank` rows by chance, or the centres of `condense` clusters (k-means)."""
    import keras

    from tfdetect.models.head_layers import Nearest

    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    banks = [kept(x[lesson.train.labels == label], detector, lesson.seed) for label in (0, 1)]
    out = Nearest(len(banks[0]), len(banks[1]), detector.k, name="score")(unit(read))
    keras.Model(read, out).get_layer("score").set_weights(banks)
    return out


def kept(x: np.ndarray, detector: "Clip", seed: int) -> np.ndarray:
    """The rows of a class that its memory bank holds."""
    if detector.condense and len(x) > detector.condense:
        from sklearn.cluster import MiniBatchKMeans

        found = MiniBatchKMeans(detector.condense, n_init=3, random_state=seed, batch_size=4096).fit(x).cluster_centers_
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    most = detector.bank // 2
    return x if len(x) <= most else x[np.sort(np.random.default_rng(seed).choice(len(x), most, replace=False))]


def triplet_svm(detector: "Clip", read: Any, x: np.ndarray, held: np.ndarray, lesson: Lesson) -> Any:
    """A projection by triplets, then a support vector machine on what it projects to."""
    import keras

    from tfdetect.models.head_layers import Triplet

    embedding = projected(detector, read)
    model = keras.Model(read, embedding)
    lesson.descend(model, x, lesson.train.labels, held, lesson.held.labels, Triplet(detector.margin, detector.mining))
    x, held = (model.predict(part, batch_size=1024, verbose=0) for part in (x, held))
    return svm(detector, embedding, x, held, lesson)


LEARNT = {"logistic": logistic, "svm": svm, "nearest": nearest, "triplet_svm": triplet_svm}
