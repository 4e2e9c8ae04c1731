"""Models of the reals, compared with scikit-learn and NumPy after saving and loading."""

import keras
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from tfdetect import models
from tfdetect.detector import FeatureFitContext, FeatureTable
from tfdetect.models.detectors.feature_oneclass import FeatureOneClass
from tfdetect.models.layers.block_dct import BlockDCTEnergies, dct_kernel

WIDTH, COMPONENTS = 12, 5


@pytest.fixture
def data(rng):
    """(training reals, other features, most of them far off); correlated features with very different scales."""
    mix = rng.normal(size=(WIDTH, WIDTH)) * np.geomspace(0.01, 100, WIDTH)
    return [(rng.normal(size=(count, WIDTH)) * scale @ mix).astype(np.float32) for count, scale in ((200, 1.0), (40, 3.0))]


def fit_by_gradient(model, x, y, validation_x, validation_y, loss=None):
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(x, np.zeros((len(x), 1)), epochs=30, batch_size=50, verbose=0)


def fit_and_score(data, tmp_path, **options):
    """Return the scores of the other features by the saved and loaded model, and scikit-learn's whitened components of both."""
    keras.utils.set_random_seed(0)
    detector = FeatureOneClass(components=COMPONENTS, **options)
    inputs = keras.Input((WIDTH,), name="clip")
    start = keras.Model(inputs, keras.layers.Identity(name="features")(inputs))
    parts = [FeatureTable(x, np.zeros(len(x), int)) for x in (data[0], data[0][:20])]
    model = detector.fit_head(start, FeatureFitContext(*parts, fit_by_gradient))
    model.save(tmp_path / "m.keras")
    scores = models.load(tmp_path / "m.keras").predict(data[1], verbose=0)[:, 0]
    mean, scale = data[0].mean(0, dtype=np.float64), data[0].std(0, dtype=np.float64)
    pca = PCA(COMPONENTS, whiten=True, random_state=0).fit((data[0] - mean) / scale)
    return scores, pca.transform((data[0] - mean) / scale), pca.transform((data[1] - mean) / scale)


def test_mahalanobis_is_the_norm_of_the_whitened_components(data, tmp_path):
    scores, _, z = fit_and_score(data, tmp_path, model="mahalanobis")
    np.testing.assert_allclose(scores, np.sqrt((z**2).mean(1)), rtol=1e-4)


def test_subspace_scores_the_residual_of_the_components(data, tmp_path):
    scores, _, _ = fit_and_score(data, tmp_path, model="subspace")
    mean, scale = data[0].mean(0, dtype=np.float64), data[0].std(0, dtype=np.float64)
    pca = PCA(COMPONENTS, random_state=0).fit((data[0] - mean) / scale)
    z = (data[1] - mean) / scale
    np.testing.assert_allclose(scores, np.sqrt(((z - pca.inverse_transform(pca.transform(z))) ** 2).mean(1)), rtol=1e-3)


def test_near_negates_the_score(data, tmp_path):
    far, near = (fit_and_score(data, tmp_path, model="mahalanobis", score_direction=side)[0] for side in ("far", "near"))
    np.testing.assert_array_equal(near, -far)


def test_nearest_is_the_mean_distance_to_the_nearest_reals(data, tmp_path):
    scores, train, z = fit_and_score(data, tmp_path, model="nearest", k=3)
    distances, _ = NearestNeighbors(n_neighbors=3).fit(train).kneighbors(z)
    np.testing.assert_allclose(scores, distances.mean(1), rtol=1e-3)


def test_a_mixture_scores_like_scikit_learn(data, tmp_path):
    scores, train, z = fit_and_score(data, tmp_path, model="mixture", mixture=2)
    mixture = GaussianMixture(2, covariance_type="diag", reg_covar=1e-2, random_state=0).fit(train)
    np.testing.assert_allclose(scores, -mixture.score_samples(z), rtol=1e-3)


def test_the_vae_scores_distant_features_higher(data, tmp_path):
    scores, _, z = fit_and_score(data, tmp_path, model="vae", latent=2)
    order = np.argsort(np.linalg.norm(z, axis=1))
    assert np.isfinite(scores).all() and scores[order[-10:]].mean() > 2 * scores[order[:10]].mean()


def test_energies_are_means_over_regions(rng):
    x = rng.uniform(-1, 1, (2, 32, 48, 3)).astype(np.float32)
    energies = keras.ops.convert_to_numpy(BlockDCTEnergies(2)(x))
    blocks = x.reshape(2, 4, 8, 6, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 6, -1) @ dct_kernel(14).reshape(192, -1)
    expected = np.log1p(np.abs(blocks)).reshape(2, 2, 2, 2, 3, -1).mean((2, 4))
    np.testing.assert_allclose(energies, expected.reshape(2, -1), rtol=1e-3, atol=1e-4)


def test_there_may_be_fewer_reals_than_components(rng, tmp_path):
    data = [rng.normal(size=(4, WIDTH)).astype(np.float32), rng.normal(size=(3, WIDTH)).astype(np.float32)]
    detector = FeatureOneClass(components=50, k=9, model="nearest")
    inputs = keras.Input((WIDTH,))
    start = keras.Model(inputs, keras.layers.Identity(name="features")(inputs))
    parts = [FeatureTable(x, np.zeros(len(x), int)) for x in data]
    assert detector.fit_head(start, FeatureFitContext(*parts, fit_by_gradient)).predict(data[1], verbose=0).shape == (3, 1)


@pytest.mark.parametrize("name", ["grid", "components", "k", "mixture", "latent"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"--detector.{name} must be at least 1, got 0"):
        FeatureOneClass(**{name: 0})
