"""Heads on features: after saving and loading, each scores like the library that fitted it."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from tfdetect import models
from tfdetect.detector import FeatureFitContext, FeatureTable
from tfdetect.evaluation import metrics
from tfdetect.models import heads
from tfdetect.models.detectors.clip import Clip
from tfdetect.models.layers.heads import ClosestText, KNNMargin, SVMDecisionFunction, TripletLoss
from tfdetect.settings import Train
from tfdetect.training.callbacks import Checkpoint
from tfdetect.training.fit_head import gradient_fit

WIDTH = 16


@pytest.fixture
def data(rng):
    """Features with overlapping classes and very different scales."""
    labels = rng.integers(0, 2, 240)
    x = (rng.normal(size=(240, WIDTH)) + 0.7 * labels[:, None]) * np.geomspace(0.01, 100, WIDTH)
    return x.astype(np.float32), labels


def fit_by_gradient(model, x, y, validation_x, validation_y, loss=None):
    """Train ten epochs with plain Keras."""
    model.compile(keras.optimizers.Adam(1e-2), loss or keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(x, y[:, None].astype(np.float32), epochs=10, batch_size=32, verbose=0)


def fit_and_load(data, tmp_path, texts=(), **options):
    """Fit a head on features and return the saved and loaded model, and the features that were not trained on."""
    x, labels = data
    keras.utils.set_random_seed(0)
    detector = Clip(preset="tiny", **options)
    inputs = keras.Input((WIDTH,), name="clip")
    features = keras.layers.Identity(name="features")(inputs)
    start = keras.Model(inputs, heads.build_head(detector, heads.join_closest_text(detector, features, ("",))))
    tables = [FeatureTable(x[rows], labels[rows], list(texts[rows]) if len(texts) else [])
              for rows in (slice(160), slice(160, 240))]  # fmt: skip
    model = detector.fit_head(start, FeatureFitContext(*tables, fit_by_gradient))
    model.save(tmp_path / "m.keras")
    return models.load(tmp_path / "m.keras"), x[160:]


def aucs_of_head_and_reference(folder, head, **options):
    """On features like a backbone's: correlated, on different scales, with a mean that is large compared to class differences."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1600)
    hidden = rng.normal(size=(1600, 64)) + 0.35 * np.outer(labels, np.arange(64) < 40)
    mixed = hidden @ (np.eye(64) + rng.normal(size=(64, 64)) / 24)
    x = (mixed * np.geomspace(0.03, 0.3, 64) + rng.normal(0, 1, 64)).astype(np.float32)
    parts = [FeatureTable(x[part], labels[part]) for part in (slice(700), slice(700, 900), slice(900, 1600))]
    validation_files = pd.DataFrame({"path": [*map(str, range(200))], "label": labels[700:900], "group": "", "source": ""})

    keras.utils.set_random_seed(0)
    detector = Clip(preset="tiny", head=head, **options)
    overrides = {key: value for key, value in Clip.default_overrides.items() if key.startswith("train.")}
    settings = Train(**{key.removeprefix("train."): value for key, value in overrides.items()})
    checkpoint = Checkpoint(folder, settings.monitor, settings.patience)
    inputs = keras.Input((64,), name="clip")
    features = keras.layers.Identity(name="features")(inputs)
    start = keras.Model(inputs, heads.build_head(detector, features))
    fit = gradient_fit(detector, settings, checkpoint, [], validation_files)
    model = detector.fit_head(start, FeatureFitContext(parts[0], parts[1], fit))

    mean, scale = heads.mean_and_std(parts[0].features)
    mlp = MLPClassifier((768,), early_stopping=True, random_state=0)
    reference = LogisticRegression(max_iter=5000) if head == "linear" else mlp
    reference.fit((parts[0].features - mean) / scale, parts[0].labels)
    best = metrics.auc(parts[2].labels, reference.predict_proba((parts[2].features - mean) / scale)[:, 1])
    return metrics.auc(parts[2].labels, model.predict(parts[2].features, verbose=0)[:, 0]), best


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_default_settings_are_as_good_as_scikit_learn(tmp_path, head):
    auc, best = aucs_of_head_and_reference(tmp_path, head)
    assert auc > best - 0.005 and best > 0.8


@pytest.mark.slow
def test_without_standardising_a_linear_head_is_worse(tmp_path):
    auc, best = aucs_of_head_and_reference(tmp_path, "linear", standardise=False)
    assert auc < best - 0.01


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_svm_scores_like_scikit_learn(data, tmp_path, kernel):
    model, test_x = fit_and_load(data, tmp_path, head="svm", kernel=kernel, C=3.0)
    x = data[0][:160].astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    machine = SVC(C=3.0, kernel=kernel, gamma="scale", class_weight="balanced").fit((x - mean) / scale, data[1][:160])
    expected = machine.decision_function((test_x - mean) / scale)
    tolerance = 1e-5 if keras.backend.backend() != "jax" else 2e-3  # jax has no float64 by default
    np.testing.assert_allclose(model.predict(test_x, verbose=0)[:, 0], expected, atol=tolerance)


def test_logistic_regression_scores_like_scikit_learn(data, tmp_path):
    model, test_x = fit_and_load(data, tmp_path, head="logistic", C=0.5)
    x = data[0][:160].astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    classifier = LogisticRegression(C=0.5, max_iter=5000, class_weight="balanced").fit((x - mean) / scale, data[1][:160])
    expected = classifier.decision_function((test_x - mean) / scale)
    np.testing.assert_allclose(model.predict(test_x, verbose=0)[:, 0], expected, atol=2e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_is_the_mean_cosine_to_the_neighbours(data, tmp_path, k):
    model, test_x = fit_and_load(data, tmp_path, head="nearest", k=k)
    x, labels = data[0][:160], data[1][:160]
    bank, queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, test_x))
    real, fake = (np.sort(queries @ bank[labels == label].T, axis=1)[:, -k:].mean(1) for label in (0, 1))
    np.testing.assert_allclose(model.predict(test_x, verbose=0)[:, 0], fake - real, atol=1e-5)


def test_the_memory_bank_is_limited_or_condensed(data, tmp_path):
    for options, count in (({"bank": 20}, 10), ({"condense": 5}, 5)):
        model, test_x = fit_and_load(data, tmp_path, head="nearest", **options)
        layer = next(layer for layer in model.layers if isinstance(layer, KNNMargin))
        assert [bank.shape for bank in layer.banks] == [(count, WIDTH)] * 2
        np.testing.assert_allclose(np.linalg.norm(keras.ops.convert_to_numpy(layer.banks[0]), axis=1), 1, atol=1e-5)
        assert np.isfinite(model.predict(test_x, verbose=0)).all()


@pytest.mark.parametrize("head", ["linear", "mlp", "triplet_svm"])
def test_heads_trained_by_gradient_descent_learn(rng, tmp_path, head):
    labels = rng.integers(0, 2, 240)
    x = (rng.normal(size=(240, WIDTH)) + 1.5 * (2 * labels[:, None] - 1)).astype(np.float32)
    model, test_x = fit_and_load((x, labels), tmp_path, head=head)
    scores = model.predict(test_x, verbose=0)[:, 0]
    assert ((scores > np.median(scores)) == (labels[160:] == 1)).mean() > 0.9


def triplet_loss(labels, points, margin, mining):
    """Compute the triplet loss of each anchor in loops."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    out = []
    for anchor, label in enumerate(labels):
        same = [row for row in range(len(labels)) if labels[row] == label and row != anchor]
        other = [row for row in range(len(labels)) if labels[row] != label]
        if not same or not other:
            out.append(0.0)
        elif mining == "hard":
            out.append(max(0, distance[anchor, same].max() - distance[anchor, other].min() + margin))
        elif mining == "random":
            out.append(np.mean([max(0, distance[anchor, p] - distance[anchor, n] + margin) for p in same for n in other]))
        else:
            losses = []
            for p in same:
                beyond = [distance[anchor, n] for n in other if distance[anchor, n] > distance[anchor, p]]
                negative = min(beyond) if beyond else distance[anchor, other].max()
                losses.append(max(0, distance[anchor, p] - negative + margin))
            out.append(np.mean(losses))
    return np.array(out)


@pytest.mark.parametrize("mining", ["random", "semihard", "hard"])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
def test_the_triplet_loss_equals_a_loop(rng, mining, labels):
    points = rng.normal(size=(7, 5))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    losses = TripletLoss(0.3, mining).call(np.array(labels, np.float32)[:, None], keras.ops.convert_to_tensor(points))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(losses), triplet_loss(labels, points, 0.3, mining), atol=1e-5)


@pytest.mark.parametrize("text", ["sum", "product"])
def test_images_are_combined_with_their_own_text_in_training_and_then_with_the_closest(rng, tmp_path, text, monkeypatch):
    embeddings = {f"text {number}": row for number, row in enumerate(rng.normal(size=(4, WIDTH)).astype(np.float32))}
    monkeypatch.setattr(Clip, "load_text_encoder", lambda self: lambda texts: np.stack([embeddings[key] for key in texts]))
    labels, kinds = rng.integers(0, 2, 240), rng.integers(0, 4, 240)
    texts = np.array([*embeddings])[kinds]
    x = np.stack([embeddings[key] for key in texts]) * (1 + labels[:, None]) + 0.1 * rng.normal(size=(240, WIDTH))
    x = x.astype(np.float32)
    model, test_x = fit_and_load((x, labels), tmp_path, texts, head="logistic", text=text)
    closest = next(layer for layer in model.layers if isinstance(layer, ClosestText))
    closest_embedding, index = closest(test_x)
    assert closest.texts == sorted(embeddings)
    assert [closest.texts[place] for place in keras.ops.convert_to_numpy(index)] == texts[160:].tolist()
    rows = np.stack([embeddings[key] for key in texts[160:]])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(closest_embedding), rows, rtol=1e-6)
    joined = test_x + rows if text == "sum" else test_x * rows
    expected = joined / np.linalg.norm(joined, axis=1, keepdims=True)
    np.testing.assert_allclose(heads.join_text_arrays(Clip(preset="tiny", text=text), test_x, rows), expected, atol=1e-6)
    out = keras.Model(model.inputs, model.get_layer("joined").output).predict(test_x, verbose=0)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_svm_computes_in_float64_under_every_policy(rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = SVMDecisionFunction(4)
        scores = layer(rng.normal(size=(3, 8)).astype(np.float32))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(scores.dtype) == "float32" and layer.compute_dtype == "float64"


@pytest.mark.parametrize("settings, message", [
    ({"lora": 4, "head": "svm"}, "linear or mlp"),
    ({"lora": 4, "unfreeze": 1}, "exclude each other"),
    ({"unfreeze": 1, "views": 2}, "without text and views"),
    ({"text": "sum", "features": "pooled"}, "projected"),
    ({"head": "prompts", "text": "sum"}, "leave out --detector.text"),
    ({"k": 0}, "--detector.k must be at least 1, got 0"),
])  # fmt: skip
def test_incompatible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Clip(preset="tiny", **settings)
