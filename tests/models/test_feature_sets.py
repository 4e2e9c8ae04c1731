"""Feature sets by name, and the fusion of several: scaling, heads, weights of the sets."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from tfdetect.detector import FeatureFitContext, FeatureTable
from tfdetect.models import feature_sets, heads
from tfdetect.models.detectors.clip import Clip
from tfdetect.models.detectors.feature_oneclass import FeatureOneClass
from tfdetect.models.detectors.fusion import Fusion, fit_scaling
from tfdetect.models.feature_sets import FeatureSet
from tfdetect.workflow.set_weights import set_weights

SETS = ("tiny@pooled", "spectrum")


@pytest.mark.parametrize(("text", "kind", "argument", "label"), [
    ("cosines", "cosines", "", "cosines"), ("cosines:4", "cosines", "4", "cosines:4"),
    ("squeezenet:/a/b.h5", "squeezenet", "/a/b.h5", "squeezenet:b.h5"), ("dinov2_base", "dinov2_base", "projected",
                                                                         "dinov2_base@projected"),
    ("hf-clip:/a/vit@x@layers:6,9+pooled", "hf-clip:/a/vit@x", "layers:6,9+pooled", "vit@x@layers:6,9+pooled"),
])  # fmt: skip
def test_sets_are_found_by_name(text, kind, argument, label):
    found = FeatureSet.parse(text)
    assert (found.kind, found.argument, found.label) == (kind, argument, label) and FeatureSet.parse(str(found)) == found


@pytest.mark.parametrize(("sets", "message"), [
    (("cosine",), r"no feature set 'cosine', expected cosines, .*Perhaps you meant cosines\.$"),
    (("cosines:0",), "cosines is written cosines or cosines:N"), (("residuals:3",), "residuals is written residuals"),
    (("squeezenet",), "squeezenet is written squeezenet:FILE"),
    (("tiny@poled",), "no features 'poled'.*Perhaps you meant pooled"),
    (("@pooled",), "no feature set '@pooled'"), (("tiny@",), "no features ''"), ((), "sets is empty"),
    (("cosines", "spectrum", "cosines"), "cosines twice"),
])  # fmt: skip
def test_wrong_sets_are_refused_when_flags_are_parsed(sets, message):
    with pytest.raises(ValueError, match=message):
        Fusion(sets=sets)


def test_a_missing_block_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="tiny has 2 transformer blocks, so there are no features layers:3; .*from 1 to 2"):
        Fusion(sets=("tiny@layers:3",)).build((1, 32, 32, 3))


def test_one_class_detectors_take_the_same_sets():
    assert FeatureOneClass(grid=3).feature_set == FeatureSet("cosines", "3")
    assert FeatureOneClass(backbone="tiny", features="layers:1").feature_set == FeatureSet("tiny", "layers:1")
    assert FeatureOneClass(backbone="residuals").build((1, 32, 32, 3)).get_layer("features").output.shape == (None, 972)


def test_sets_of_one_preset_share_a_backbone():
    model = Fusion(sets=("tiny@pooled", "tiny@layers:1+patches:1", "tiny@projected")).build((1, 32, 32, 3))
    assert len([layer for layer in model.layers if isinstance(layer, keras.Model)]) == 1
    assert model.get_layer("scaled").widths == [32, 64, 16]


def context(rng, width, rows=300):
    labels = rng.integers(0, 2, rows)
    x = (rng.normal(3, 1, (rows, width)) + labels[:, None] * (np.arange(width) < 8)) * np.geomspace(0.01, 50, width)
    table = FeatureTable(x.astype(np.float32), labels)
    return FeatureFitContext(table, table, lambda *arguments: pytest.fail("no gradient descent"))


def test_each_set_gets_the_same_variance(rng):
    x = rng.normal(5, np.geomspace(0.1, 100, 12), (500, 12))
    x[:, 3] = 7
    mean, factor = fit_scaling(x, [2, 10])
    scaled = (x - mean) * factor
    assert scaled[:, :2].var(0).sum() == pytest.approx(6) and scaled[:, 2:].var(0).sum() == pytest.approx(6 * 0.9)
    assert np.isfinite(scaled).all() and (scaled[:, 3] == 0).all()


def test_a_single_set_is_the_same_as_clip(rng):
    data = context(rng, 32)
    scores = []
    for detector in (Fusion(sets=("tiny@pooled",)), Clip(preset="tiny", features="pooled", head="logistic")):
        model = detector.fit_head(detector.build((1, 32, 32, 3)), data)
        scores.append(keras.Model(model.get_layer("features").output, model.output).predict(data.train.features, verbose=0))
    np.testing.assert_allclose(*scores, atol=2e-3)


def test_averaged_scores_count_every_output_alike(rng):
    detector = Fusion(sets=("tiny@layers:1+patches:1+variances:2", "spectrum"), head="average")
    assert [each.label for each in detector.feature_sets] == ["tiny@layers:1", "tiny@patches:1", "tiny@variances:2", "spectrum"]
    data = context(rng, 3 * 32 + 192)
    model = detector.fit_head(detector.build((1, 32, 32, 3)), data)
    head, parts = keras.Model(model.get_layer("features").output, model.output), []
    for columns in (slice(0, 32), slice(32, 64), slice(64, 96), slice(96, None)):
        x = data.train.features[:, columns]
        kernel, bias = heads.logistic_weights(heads.HeadSettings(), x, data.train.labels)
        parts.append((x @ kernel + bias) / (x @ kernel).std())
    np.testing.assert_allclose(head.predict(data.train.features, verbose=0), np.mean(parts, axis=0), atol=1e-2)


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_the_report_weighs_the_sets(rng, head):
    """Only the first eight features, which are CLIP's, tell the classes apart."""
    detector = Fusion(sets=SETS, head=head, C=0.01 if head == "logistic" else 1.0)
    data, other = context(rng, 32 + 192), context(rng, 32 + 192).train
    model = detector.fit_head(detector.build((1, 32, 32, 3)), data)
    table = set_weights(model, other.features, other.labels).set_index("feature set")
    assert [*table.index] == ["tiny@pooled", "spectrum"] and [*table["features"]] == [32, 192]
    assert table["share"].sum() == pytest.approx(1)
    assert table.loc["tiny@pooled", "AUC alone"] > 0.9 > 0.6 > table.loc["tiny@pooled", "AUC without"]
    assert table.loc["spectrum", "AUC without"] > 0.9 > 0.6 > table.loc["spectrum", "AUC alone"]


def test_other_models_have_no_weights_of_sets():
    assert set_weights(Clip(preset="tiny").build((1, 32, 32, 3)), np.zeros((4, 16), np.float32), np.arange(4) % 2).empty


def test_weights_and_requirements_follow_the_sets(monkeypatch):
    required = []
    monkeypatch.setattr(feature_sets.presets, "require", required.append)
    detector = Fusion(sets=("dinov2_base@pooled", "cosines"))
    detector.require()
    assert required == ["dinov2_base"] and detector.warnings() == ()
    assert detector.offline_overrides == {"sets": ("tiny@projected", "cosines")}
    assert "tiny@projected IS RANDOM" in Fusion(sets=("tiny", "cosines")).warnings()[0]
    squeezenet = SimpleNamespace(require=lambda: required.append("squeezenet"))
    monkeypatch.setattr(feature_sets, "_squeezenet_detector", lambda file: squeezenet)
    FeatureSet.parse("squeezenet:FILE").require()
    assert required[-1] == "squeezenet"
