"""Heads on features: each gives what the library that fitted it gives, also when it is saved and loaded."""

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
    """Features whose classes overlap, with scales that are very unlike."""
    labels = rng.integers(0, 2, 240)
    x = (rng.normal(size=(240, WIDTH)) + 0.7 * labels[:, None]) * np.geomspace(0.01, 100, WIDTH)
    return x.astype(np.float32), labels


def fit_by_gradient(model, x, y, held_x, held_y, loss=None):
    """Ten epochs, without the training's machinery."""
    model.compile(keras.optimizers.Adam(1e-2), loss or keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(x, y[:, None].astype(np.float32), epochs=10, batch_size=32, verbose=0)


def learnt(data, tmp_path, texts=(), **options):
    """(model of features alone, saved and loaded; the features that were not trained on)."""
    x, labels = data
    keras.utils.set_random_seed(0)
    detector = Clip(preset="tiny", **options)
    inputs = keras.Input((WIDTH,), name="clip")
    features = keras.layers.Identity(name="features")(inputs)
    start = keras.Model(inputs, heads.build_head(detector, heads.join_closest_text(detector, features, ("",))))
    parts = [FeatureTable(x[part], labels[part], list(texts[part]) if len(texts) else []) for part in (slice(160), slice(160, 240))]
    found = detector.fit_head(start, FeatureFitContext(*parts, fit_by_gradient))
    found.save(tmp_path / "m.keras")
    return models.load(tmp_path / "m.keras"), x[160:]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_heads_defaults_reach_what_scikit_learn_does(tmp_path, head):
    """On features as a backbone's: mixed, of unlike spread, about a mean that is large beside what tells them apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1600)
    hidden = rng.normal(size=(1600, 64)) + 0.35 * np.outer(labels, np.arange(64) < 40)
    mixed = hidden @ (np.eye(64) + rng.normal(size=(64, 64)) / 24)
    x = (mixed * np.geomspace(0.03, 0.3, 64) + rng.normal(0, 1, 64)).astype(np.float32)
    parts = [FeatureTable(x[part], labels[part]) for part in (slice(700), slice(700, 900), slice(900, 1600))]
    held = pd.DataFrame({"path": [*map(str, range(200))], "label": labels[700:900], "group": "", "source": ""})

    def auc(**options):
        keras.utils.set_random_seed(0)
        detector = Clip(preset="tiny", head=head, **options)
        settings = Train(**{key.removeprefix("train."): value for key, value in Clip.default_overrides.items() if key.startswith("train.")})
        checkpoint = Checkpoint(tmp_path / f"{options}", settings.monitor, settings.patience)
        inputs = keras.Input((64,), name="clip")
        features = keras.layers.Identity(name="features")(inputs)
        start = keras.Model(inputs, heads.build_head(detector, features))
        found = detector.fit_head(start, FeatureFitContext(parts[0], parts[1], gradient_fit(detector, settings, checkpoint, [], held)))
        return metrics.auc(parts[2].labels, found.predict(parts[2].features, verbose=0)[:, 0])

    mean, scale = heads.mean_and_std(parts[0].features)
    theirs = LogisticRegression(max_iter=5000) if head == "linear" else MLPClassifier((768,), early_stopping=True, random_state=0)
    theirs.fit((parts[0].features - mean) / scale, parts[0].labels)
    best = metrics.auc(parts[2].labels, theirs.predict_proba((parts[2].features - mean) / scale)[:, 1])
    assert auc() > best - 0.005 and best > 0.8
    assert head == "mlp" or auc(standardise=False) < best - 0.01


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_support_vectors_score_as_scikit_learn(data, tmp_path, kernel):
    model, held = learnt(data, tmp_path, head="svm", kernel=kernel, C=3.0)
    x = data[0][:160].astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    machine = SVC(C=3.0, kernel=kernel, gamma="scale", class_weight="balanced").fit((x - mean) / scale, data[1][:160])
    expected = machine.decision_function((held - mean) / scale)
    tolerance = 1e-5 if keras.backend.backend() != "jax" else 2e-3  # which has no float64 by itself
    np.testing.assert_allclose(model.predict(held, verbose=0)[:, 0], expected, atol=tolerance)


def test_logistic_regression_scores_as_scikit_learn(data, tmp_path):
    model, held = learnt(data, tmp_path, head="logistic", C=0.5)
    x = data[0][:160].astype(np.float64)
    mean, scale = x.mean(0), x.std(0)
    found = LogisticRegression(C=0.5, max_iter=5000, class_weight="balanced").fit((x - mean) / scale, data[1][:160])
    expected = found.decision_function((held - mean) / scale)
    np.testing.assert_allclose(model.predict(held, verbose=0)[:, 0], expected, atol=2e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_is_the_mean_cosine_of_the_neighbours(data, tmp_path, k):
    model, held = learnt(data, tmp_path, head="nearest", k=k)
    x, labels = data[0][:160], data[1][:160]
    unit, asked = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, held))
    real, fake = (np.sort(asked @ unit[labels == label].T, axis=1)[:, -k:].mean(1) for label in (0, 1))
    np.testing.assert_allclose(model.predict(held, verbose=0)[:, 0], fake - real, atol=1e-5)


def test_the_memory_bank_is_limited_or_condensed(data, tmp_path):
    for options, count in (({"bank": 20}, 10), ({"condense": 5}, 5)):
        model, held = learnt(data, tmp_path, head="nearest", **options)
        layer = next(layer for layer in model.layers if isinstance(layer, KNNMargin))
        assert [bank.shape for bank in layer.banks] == [(count, WIDTH)] * 2
        np.testing.assert_allclose(np.linalg.norm(keras.ops.convert_to_numpy(layer.banks[0]), axis=1), 1, atol=1e-5)
        assert np.isfinite(model.predict(held, verbose=0)).all()


@pytest.mark.parametrize("head", ["linear", "mlp", "triplet_svm"])
def test_gradients_reach_what_they_are_to_teach(rng, tmp_path, head):
    labels = rng.integers(0, 2, 240)
    x = (rng.normal(size=(240, WIDTH)) + 1.5 * (2 * labels[:, None] - 1)).astype(np.float32)
    model, held = learnt((x, labels), tmp_path, head=head)
    scores = model.predict(held, verbose=0)[:, 0]
    assert ((scores > np.median(scores)) == (labels[160:] == 1)).mean() > 0.9


def reference(labels, points, margin, mining):
    """TripletLoss loss of each anchor by loops."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    out = []
    for anchor, label in enumerate(labels):
        same = [row for row in range(len(labels)) if labels[row] == label and row != anchor]
        other = [row for row in range(len(labels)) if labels[row] != label]
        if not same or not other:
            out.append(0.0)
        elif mining == "hard":
            out.append(max(0, apart[anchor, same].max() - apart[anchor, other].min() + margin))
        elif mining == "random":
            out.append(np.mean([max(0, apart[anchor, p] - apart[anchor, n] + margin) for p in same for n in other]))
        else:
            losses = []
            for p in same:
                beyond = [apart[anchor, n] for n in other if apart[anchor, n] > apart[anchor, p]]
                negative = min(beyond) if beyond else apart[anchor, other].max()
                losses.append(max(0, apart[anchor, p] - negative + margin))
            out.append(np.mean(losses))
    return np.array(out)


@pytest.mark.parametrize("mining", ["random", "semihard", "hard"])
@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
def test_the_triplet_loss_is_that_of_loops(rng, mining, labels):
    points = rng.normal(size=(7, 5))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    found = TripletLoss(0.3, mining).call(np.array(labels, np.float32)[:, None], keras.ops.convert_to_tensor(points))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), reference(labels, points, 0.3, mining), atol=1e-5)


@pytest.mark.parametrize("how", ["sum", "product"])
def test_pictures_are_joined_with_their_own_text_and_once_trained_with_the_closest(rng, tmp_path, how, monkeypatch):
    words = {f"text {number}": row for number, row in enumerate(rng.normal(size=(4, WIDTH)).astype(np.float32))}
    monkeypatch.setattr(Clip, "texts", lambda self: lambda texts: np.stack([words[text] for text in texts]))
    labels, kinds = rng.integers(0, 2, 240), rng.integers(0, 4, 240)
    texts = np.array([*words])[kinds]
    x = np.stack([words[text] for text in texts]) * (1 + labels[:, None]) + 0.1 * rng.normal(size=(240, WIDTH))
    x = x.astype(np.float32)
    model, held = learnt((x, labels), tmp_path, texts, head="logistic", text=how)
    closest = next(layer for layer in model.layers if isinstance(layer, ClosestText))
    picked, number = closest(held)
    assert closest.texts == sorted(words)
    assert [closest.texts[place] for place in keras.ops.convert_to_numpy(number)] == texts[160:].tolist()
    rows = np.stack([words[text] for text in texts[160:]])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(picked), rows, rtol=1e-6)
    both = held + rows if how == "sum" else held * rows
    expected = both / np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(heads.join_text_arrays(Clip(preset="tiny", text=how), held, rows), expected, atol=1e-6)
    out = keras.Model(model.inputs, model.get_layer("joined").output).predict(held, verbose=0)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_support_vectors_need_float64(rng):
    """Which they use whatever the policy is."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = SVMDecisionFunction(4)
        found = layer(rng.normal(size=(3, 8)).astype(np.float32))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(found.dtype) == "float32" and layer.compute_dtype == "float64"


@pytest.mark.parametrize("wrong, said", [
    ({"lora": 4, "head": "svm"}, "linear or mlp"),
    ({"lora": 4, "unfreeze": 1}, "exclude each other"),
    ({"unfreeze": 1, "views": 2}, "without text and views"),
    ({"text": "sum", "features": "pooled"}, "projected"),
    ({"head": "prompts", "text": "sum"}, "leave out --detector.text"),
    ({"k": 0}, "--detector.k must be at least 1, got 0"),
])  # fmt: skip
def test_what_does_not_go_together_is_said(wrong, said):
    with pytest.raises(ValueError, match=said):
        Clip(preset="tiny", **wrong)
