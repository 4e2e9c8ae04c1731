"""Features are computed once and reused: by other heads, after an interruption, and per augmented view."""

import keras
import numpy as np
import pytest
from in_process import decode_here

from tfdetect import models
from tfdetect.artifact import Artifact
from tfdetect.data import manifest
from tfdetect.data.input_pipeline import corruptions
from tfdetect.data.layouts import detect
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.data.prepare.decode import prepare, usable_rows
from tfdetect.limits import Limits
from tfdetect.models.detectors.clip import Clip
from tfdetect.models.detectors.fusion import Fusion
from tfdetect.models.layers import common
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor
from tfdetect.settings import Train
from tfdetect.training import fit
from tfdetect.training.feature_extractor import FeatureExtractor, digest, silent
from tfdetect.training.fit_head import fit_head

FIT = {True: fit_head, False: fit.fit}  # caches_features -> training function
HEADS = ("linear", "mlp", "logistic", "svm", "nearest", "triplet_svm")


@pytest.fixture(scope="module")
def table(images, tmp_path_factory):
    """(Table of decoded images, their cache)."""
    cache = Cache(tmp_path_factory.mktemp("cache"), ClipSpec(1, 32))
    return usable_rows(prepare(manifest.split(detect.read(images)), cache, runner=decode_here)), cache


@pytest.fixture
def frame_counts(monkeypatch):
    """List of the number of frames in each call of the backbone."""
    counts, compute = [], FeatureExtractor._compute

    def count(self, sets, rows, augment):
        counts.append(len(rows))
        return compute(self, sets, rows, augment)

    monkeypatch.setattr(FeatureExtractor, "_compute", count)
    return counts


def train(detector, table, cache, folder, **settings):
    train_settings = Train(epochs=2, batch=8, **settings)
    return FIT[detector.caches_features](detector, table, cache, train_settings, folder / "c", folder / "m.keras", [])


def test_further_heads_do_not_run_the_backbone(table, frame_counts, tmp_path, eager):
    rows, cache = table
    train(Clip(preset="tiny", head="logistic"), rows, cache, tmp_path / "1")
    assert sum(frame_counts) == len(rows[rows["split"] != "test"])
    frame_counts.clear()
    for number, head in enumerate(head for head in HEADS if head != "logistic"):
        train(Clip(preset="tiny", head=head), rows, cache, tmp_path / f"2{number}")
    validation = rows[rows["split"] == "validation"]
    fit.predict_scores(models.load(tmp_path / "20" / "m.keras"), validation, cache, Clip(preset="tiny"), 8)
    assert sum(frame_counts) == 0
    train(Clip(preset="tiny", features="pooled", head="logistic"), rows, cache, tmp_path / "3")
    assert sum(frame_counts) == len(rows[rows["split"] != "test"]), "other features are computed"


def test_a_new_set_or_head_computes_only_what_is_new(table, frame_counts, tmp_path):
    """A set is stored once, whichever detectors use it."""
    rows, cache = table
    count = len(rows[rows["split"] != "test"])

    def computed(number, detector):
        """(number of frames that were computed, number of sets in the cache)."""
        frame_counts.clear()
        train(detector, rows, cache, tmp_path / str(number))
        return sum(frame_counts), len([*(cache.root / "features").iterdir()])

    assert computed(1, Clip(preset="tiny", features="layers:2+patches:1,2", head="logistic"))[0] == count
    stored = computed(2, Fusion(sets=("tiny@patches:1,2", "spectrum:4"), head="logistic"))
    assert stored[0] == count
    assert computed(3, Fusion(sets=("spectrum:4", "tiny@patches:2", "tiny@layers:2"), head="svm")) == (0, stored[1])
    assert computed(4, Clip(preset="tiny", features="patches:1", head="svm")) == (0, stored[1])
    assert computed(5, Fusion(sets=("tiny@patches:1", "spectrum:4", "spectrum:5"), head="logistic")) == (count, stored[1] + 1)


def test_all_views_but_the_first_are_augmented(table, frame_counts, tmp_path, eager):
    rows, cache = table
    model = Clip(preset="tiny").build((1, 32, 32, 3))
    plain = FeatureExtractor(model, Clip(preset="tiny"), cache, silent).of(rows)
    views = FeatureExtractor(model, Clip(preset="tiny"), cache, silent).of(rows, 3, "noise(20,30)")
    assert views.features.shape == (3 * len(rows), plain.features.shape[1])
    np.testing.assert_array_equal(views.features[::3], plain.features)
    np.testing.assert_array_equal(views.labels, np.repeat(plain.labels, 3))
    assert len(np.unique(views.features[:, 0])) == len(views.features), "each view is augmented differently"
    reversed_views = FeatureExtractor(model, Clip(preset="tiny"), cache, silent).of(rows.iloc[::-1], 3, "noise(20,30)")
    np.testing.assert_array_equal(reversed_views.features[::3][::-1], plain.features)


def test_features_equal_those_of_the_model(table, eager):
    rows, cache = table
    model = Clip(preset="tiny").build((1, 32, 32, 3))
    result = FeatureExtractor(model, Clip(preset="tiny"), cache, silent).of(rows)
    clips = np.stack([cache.load(sha) for sha in rows["sha"]])
    np.testing.assert_allclose(result.features, common.submodel_until(model, "features").predict(clips, verbose=0), atol=1e-5)
    scores = common.submodel_from(model, "features").predict(result.features, verbose=0)
    np.testing.assert_allclose(scores, model.predict(clips, verbose=0), atol=1e-5)
    assert list(result.paths) == list(rows["path"]) and list(result.sources) == list(rows["source"])


def test_digest_depends_on_layers_and_weights_but_not_on_names():
    def model(units, name, activation="relu"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(units, activation, name=name)(inputs))

    assert digest(model(3, "a")) == digest(model(3, "b"))
    assert len({digest(model(3, "a")), digest(model(2, "a")), digest(model(3, "a", "tanh"))}) == 3
    other = model(3, "a")
    other.layers[1].bias.assign([0, 0, 1e-6])
    assert digest(other) != digest(model(3, "a"))


def test_digest_depends_on_connections_dtype_and_nesting_but_not_on_counters():
    def model(first="a", parallel=False, dtype="float32", nested=False, training=None):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4,))
        left = keras.layers.Dense(4, dtype=dtype, name=first)(inputs)
        right = keras.layers.Dense(4, dtype=dtype, name=f"{first}-other")(inputs if parallel else left)
        inner = keras.Model(inputs, keras.layers.Subtract()([left, right]))
        outer_inputs = keras.Input((4,))
        return keras.Model(outer_inputs, inner(outer_inputs, training=training)) if nested else inner

    for nested in (False, True):
        sequential, renamed, parallel = model(nested=nested), model("z", nested=nested), model(parallel=True, nested=nested)
        assert all((a == b).all() for a, b in zip(sequential.get_weights(), parallel.get_weights(), strict=True))
        assert digest(sequential) == digest(renamed) != digest(parallel)
    assert len({digest(model()), digest(model(nested=True)), digest(model(dtype="mixed_float16"))}) == 3
    assert digest(model(nested=True)) != digest(model(nested=True, training=False))


def test_features_are_recomputed_if_the_reader_or_clip_spec_changes(table, monkeypatch):
    _, cache = table
    model = Clip(preset="tiny").build((1, 32, 32, 3))
    folders = [FeatureExtractor(model, Clip(preset="tiny"), cache, silent).stores[0].folder]
    same = FeatureExtractor(Clip(preset="tiny").build((1, 32, 32, 3)), Clip(preset="tiny"), cache, silent).stores[0].folder
    assert same == folders[0], "another model with the same weights"
    for other in (Cache(cache.root, ClipSpec(1, 32, fps=5.0)), Cache(cache.root, ClipSpec(1, 32), "tfrecord")):
        folders.append(FeatureExtractor(model, Clip(preset="tiny"), other, silent).stores[0].folder)
    monkeypatch.setattr("tfdetect.data.prepare.clip_cache.READER_VERSION", 10_000)
    folders.append(FeatureExtractor(model, Clip(preset="tiny"), cache, silent).stores[0].folder)
    assert len(set(folders)) == 4
    wider = Cache(cache.root, ClipSpec(1, 32, limits=Limits(pixels=cache.spec.limits.pixels * 2)))
    assert FeatureExtractor(model, Clip(preset="tiny"), wider, silent).stores[0].folder == folders[-1], "limits change no pixel"


def test_resumed_run_equals_an_uninterrupted_one(table, tmp_path, eager):
    rows, cache = table
    uninterrupted = fit_head(Clip(preset="tiny"), rows, cache, Train(epochs=4, batch=8), tmp_path / "a", tmp_path / "a.keras", [])

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_head(Clip(preset="tiny"), rows, cache, Train(epochs=4, batch=8), tmp_path / "b", tmp_path / "b.keras", [Stop()])
    resumed = fit_head(Clip(preset="tiny"), rows, cache, Train(epochs=4, batch=8), tmp_path / "b", tmp_path / "b.keras", [])
    np.testing.assert_allclose(resumed.history, uninterrupted.history, rtol=1e-5)
    assert len(resumed.history) == 4


def test_several_devices_are_refused(table, tmp_path):
    rows, cache = table
    with pytest.raises(ValueError, match="one device.*give --train.strategy auto or single"):
        train(Clip(preset="tiny"), rows, cache, tmp_path, strategy="mirrored")


@pytest.mark.parametrize("detector", [
    *(pytest.param(Clip(preset="tiny", head=head), id=head, marks=[pytest.mark.slow] * (head != "triplet_svm"))
      for head in HEADS),
    pytest.param(Clip(preset="tiny", features="layers:1+patches:2", head="svm"), id="layers"),
    pytest.param(Fusion(sets=("tiny@penultimate+patches:1", "cosines", "residuals", "spectrum")), id="fusion"),
])  # fmt: skip
def test_export_of_every_head_agrees_on_pixels_and_features(table, tmp_path, detector, light_test, request):
    """Compare the exported model with the one in memory."""
    if not isinstance(detector, Fusion):  # whose standardised cosines enlarge the difference between graphs and none
        request.getfixturevalue("eager")
    rows, cache = table
    artifact = Artifact(tmp_path)
    fit_head(detector, rows, cache, Train(epochs=2, batch=8), tmp_path / "c", artifact.model, [])
    artifact.calibration.write_text('{"slope": 1, "intercept": 0, "threshold": 0.5}')
    model = models.load(artifact.model)
    export(model, {"slope": 1, "intercept": 0, "threshold": 0.5}, detector, artifact.saved_model)
    predictor = Predictor(artifact, cache.spec, detector)
    clips = np.stack([cache.load(sha) for sha in rows["sha"]])
    expected = model.predict(clips, verbose=0)[:, 0]
    assert expected.std() > 0
    np.testing.assert_allclose(predictor.predict_clips(clips)[0], expected, atol=1e-4, rtol=1e-4)
    features = FeatureExtractor(model, detector, cache, silent).of(rows).features
    np.testing.assert_allclose(predictor.predict_features(features)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"lora": 2}, {"unfreeze": 1}])
def test_lora_and_unfrozen_blocks_train_the_backbone(table, frame_counts, tmp_path, options, eager):
    rows, cache = table
    detector = Clip(preset="tiny", **options)
    start = detector.build((1, 32, 32, 3))
    clips = np.stack([cache.load(sha) for sha in rows["sha"][:2]])
    before = common.submodel_until(start, "features").predict(clips, verbose=0)
    fitted = train(detector, rows, cache, tmp_path)
    after = common.submodel_until(models.load(tmp_path / "m.keras"), "features").predict(clips, verbose=0)
    assert not frame_counts and len(fitted.history) == 2
    assert np.abs(after - before).max() > 1e-5, "the backbone has not changed"


def test_features_of_altered_files_are_stored_and_are_those_of_the_altered_pixels(table, frame_counts, eager):
    rows, cache = table
    detector = Clip(preset="tiny")
    model = detector.build((1, 32, 32, 3))
    extractor = FeatureExtractor(model, detector, cache, silent)
    found = extractor.of_corrupted(rows, "jpeg(70)").features
    assert sum(frame_counts) == len(rows)
    np.testing.assert_array_equal(extractor.of_corrupted(rows, "jpeg(70)").features, found)
    assert sum(frame_counts) == len(rows), "nothing is computed twice"
    clips = np.stack([cache.load(sha) for sha in rows["sha"]])
    altered = corruptions.parse("jpeg(70)")(clips, np.zeros((len(clips), 1)), [0, 0])[0].numpy()
    expected = common.submodel_until(model, "features").predict(altered, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - extractor.of(rows).features).max() > 1e-3


def test_scores_of_a_known_extractor_hash_no_weights_again(table, monkeypatch, eager):
    rows, cache = table
    detector = Clip(preset="tiny")
    model = detector.build((1, 32, 32, 3))
    extractor = FeatureExtractor(model, detector, cache, silent)
    expected = fit.predict_scores(model, rows, cache, detector, 8)
    monkeypatch.setattr("tfdetect.training.feature_extractor.digest", lambda model: pytest.fail("the weights are hashed again"))
    np.testing.assert_array_equal(fit.predict_scores(model, rows, cache, detector, 8, extractor), expected)
