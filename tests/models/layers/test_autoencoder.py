"""Losses and scores of autoencoders, compared with their formulas in NumPy."""

import keras
import numpy as np
import pytest

from tfdetect import backend
from tfdetect.models.detectors.resnet_vae import copy_weights, resnet18
from tfdetect.models.layers import autoencoder


@pytest.fixture
def parts(rng):
    """(image, reconstruction, mean, log variance), float32."""
    return [rng.normal(size=shape).astype(np.float32) for shape in ((5, 12, 8, 3), (5, 12, 8, 3), (5, 7), (5, 7))]


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def kl(mean, log_variance):
    """KL divergence of N(mean, variance) from N(0, 1) by its definition, the mean of log q - log p under q, by quadrature."""
    at = np.linspace(-12, 12, 20001)[:, None]
    deviation = np.exp(0.5 * log_variance)
    log_q = -0.5 * ((at - mean) / deviation) ** 2 - np.log(deviation)
    return np.trapezoid(np.exp(log_q) / np.sqrt(2 * np.pi) * (log_q + 0.5 * at**2), at, axis=0)


def test_kl_divergence_equals_its_closed_form(parts):
    mean, log_variance = (part.astype(np.float64) for part in parts[2:])
    closed = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)
    np.testing.assert_allclose(closed[0], kl(mean[0], log_variance[0]), rtol=1e-6)
    np.testing.assert_allclose(numpy(autoencoder.kl_divergence(*parts[2:])), closed, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(numpy(autoencoder.KLDivergence()(parts[2:])), closed.sum(1, keepdims=True), rtol=1e-5)


def test_the_loss_is_squared_error_plus_kl(parts):
    x, again, mean, log_variance = (part.astype(np.float64) for part in parts)
    error = ((x - again) ** 2).sum((1, 2, 3)).mean()
    each = (0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance)).mean(0)
    for beta, free_bits in ((1.0, 0.0), (0.3, 0.0), (1.0, 0.9)):
        layer = autoencoder.VAELoss(beta=beta, free_bits=free_bits)
        out = layer(parts)
        assert all(np.array_equal(numpy(one), other) for one, other in zip(out, parts, strict=True)), "inputs are passed through"
        assert float(layer.losses[0]) == pytest.approx(error + beta * np.maximum(each, free_bits).sum(), rel=1e-5)
        if keras.backend.backend() != "jax":
            assert [float(metric.result()) for metric in layer.term_metrics] == pytest.approx([error, each.sum()], rel=1e-5)


def test_without_a_log_variance_the_loss_is_the_squared_error(parts):
    layer = autoencoder.VAELoss()
    layer(parts[:3])
    assert float(layer.losses[0]) == pytest.approx(((parts[0] - parts[1]) ** 2).sum((1, 2, 3)).mean(), rel=1e-5)


def test_beta_warms_up_in_training_only(parts):
    layer = autoencoder.VAELoss(beta=2.0, warmup=4)
    layer(parts, training=False)
    terms = autoencoder.squared_error(*parts[:2]), autoencoder.kl_divergence(*parts[2:])
    error, kl_term = (float(numpy(term).sum() / 5) for term in terms)
    assert float(layer.losses[0]) == pytest.approx(error + 2 * kl_term, rel=1e-5), "evaluation uses the full beta"
    betas = []
    for _ in range(6):
        layer(parts, training=True)
        betas.append((float(layer.losses[-1]) - error) / kl_term)
    assert betas == pytest.approx([0.5, 1, 1.5, 2, 2, 2], rel=1e-3)


def test_a_layer_that_adds_no_loss_updates_no_metric(parts):
    layer = autoencoder.VAELoss()
    layer(parts)
    layer.adds_loss = False
    before = [float(metric.result()) for metric in layer.term_metrics]
    layer([part * 2 for part in parts])
    assert [float(metric.result()) for metric in layer.term_metrics] == before and not layer.losses


def test_rmse_is_over_channels_and_pixels(parts):
    x, again = parts[:2]
    expected = np.sqrt(((x - again).astype(np.float64) ** 2).reshape(5, -1).mean(1))
    np.testing.assert_allclose(numpy(autoencoder.RMSE()([x, again]))[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(numpy(autoencoder.RMSE()([x, x])), 0, atol=2e-6)


def test_negative_elbo_is_the_loss_of_each_image(parts):
    each = numpy(autoencoder.NegativeELBO()(parts))[:, 0]
    layer = autoencoder.VAELoss()
    layer(parts)
    assert each.mean() == pytest.approx(float(layer.losses[0]), rel=1e-5) and len(np.unique(each)) == 5


def test_latents_are_sampled_in_training_and_the_mean_in_inference():
    mean, log_variance = np.full((20000, 2), 3.0, np.float32), np.full((20000, 2), np.log(0.25), np.float32)
    layer = autoencoder.GaussianSampling(seed=0)
    samples = numpy(layer([mean, log_variance], training=True))
    assert samples.mean() == pytest.approx(3, abs=0.02) and samples.std() == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(numpy(layer([mean, log_variance], training=False)), mean)


def test_the_error_spectrum_equals_numpys(rng):
    x, again = rng.normal(size=(2, 3, 16, 16, 3)).astype(np.float32)
    spectrum = numpy(autoencoder.ErrorSpectrum(bins=4)([x, again]))
    power = np.abs(np.fft.fft2(np.abs(x - again).mean(-1))) ** 2
    frequency = np.hypot(np.fft.fftfreq(16)[:, None], np.fft.fftfreq(16))
    expected = [power[:, (frequency >= low) & (frequency < low + 0.125)].mean(1) for low in (0, 0.125, 0.25, 0.375)]
    np.testing.assert_allclose(spectrum, np.log(np.stack(expected, 1)), rtol=1e-4)


def test_perceptual_distance_is_zero_for_equal_maps_and_grows():
    maps = [np.random.default_rng(n).normal(size=(2, 4, 4, 6)).astype(np.float32) for n in range(2)]
    same, near, far = (numpy(autoencoder.PerceptualDistance()([*maps, *others]))[0, 0]
                       for others in (maps, [m + 0.1 for m in maps], [-m for m in maps]))  # fmt: skip
    assert same < 1e-5 < near < far == pytest.approx(np.sqrt(4 / 6), rel=1e-3)


def linear(kernel):
    """Return a decoder z -> z @ kernel."""
    inputs = keras.Input((kernel.shape[0],))
    model = keras.Model(inputs, keras.layers.Dense(kernel.shape[1], use_bias=False)(inputs))
    model.set_weights([kernel])
    return model


def test_likelihood_regret_is_the_gain_of_the_best_latent(rng):
    """For a linear decoder the best latent is known in closed form, as ridge regression."""
    kernel, x = rng.normal(size=(2, 6)).astype(np.float32), rng.normal(size=(4, 6)).astype(np.float32)
    mean = rng.normal(size=(4, 2)).astype(np.float32)
    layer = autoencoder.LikelihoodRegret(linear(kernel), steps=300, learning_rate=0.02)
    again, regret = layer([x, mean, mean])
    np.testing.assert_allclose(numpy(again), mean @ kernel, rtol=1e-4, atol=1e-5)

    def loss(z):
        return ((x - z @ kernel) ** 2).sum(1) + 0.5 * (z**2).sum(1)

    best = x @ kernel.T @ np.linalg.inv(kernel @ kernel.T + 0.5 * np.eye(2))
    np.testing.assert_allclose(numpy(regret)[:, 0], loss(mean) - loss(best), rtol=0.02, atol=0.02)
    assert not numpy(layer([x, mean, mean], training=True)[1]).any()


def test_a_linear_autoencoder_reaches_its_known_optimum():
    """A linear VAE of Gaussian data is probabilistic PCA (Tipping and Bishop 1999), here with noise of variance 1/2. Its best
    loss is the negative log likelihood of the data under that model, less the constant that the squared error leaves out."""
    keras.utils.set_random_seed(0)
    rng, dimensions, inner = np.random.default_rng(0), 5, 2
    truth = rng.normal(size=(inner, dimensions)) * 1.5
    x = (rng.normal(size=(4096, inner)) @ truth + np.sqrt(0.5) * rng.normal(size=(4096, dimensions))).astype(np.float32)
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True) + np.outer(x.mean(0), x.mean(0)))[::-1]
    values = np.concatenate([np.maximum(values[:inner], 0.5), np.full(dimensions - inner, 0.5)]), values
    likelihood = 0.5 * (np.log(2 * np.pi * values[0]) + values[1] / values[0]).sum()
    best = likelihood - 0.5 * dimensions * np.log(np.pi)

    inputs = keras.Input((dimensions,))
    mean = keras.layers.Dense(inner, use_bias=False)(inputs)
    log_variance = keras.layers.Dense(inner, kernel_initializer="zeros")(inputs)
    again = keras.layers.Dense(dimensions, use_bias=False)(autoencoder.GaussianSampling(seed=1)([mean, log_variance]))
    model = keras.Model(inputs, autoencoder.VAELoss()([inputs, again, mean, log_variance])[1])
    at_once = 16 if backend.is_tensorflow() else 1  # steps per call, which takes longer than a step
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.05, 100 * 16)), steps_per_execution=at_once)
    history = model.fit(x, np.zeros(len(x)), batch_size=256, epochs=100, verbose=0).history["loss"]
    assert history[0] > 1.15 * best, "training starts far from the optimum"
    assert np.mean(history[-10:]) == pytest.approx(best, rel=0.01)


def test_resnet18_equals_keras_hubs(rng):
    import keras_hub

    theirs = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2], stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block", image_shape=(64, 64, 3),
    )  # fmt: skip
    for place, weight in enumerate(theirs.weights):
        low = 0.5 if "variance" in weight.path else -0.05
        weight.assign(np.random.default_rng(place).uniform(low, low + 0.1, weight.shape))
    inputs = keras.Input((64, 64, 3))
    ours = keras.Model(inputs, resnet18(inputs)[-1])
    copy_weights(ours, theirs)
    x = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    expected = theirs.predict(x, verbose=0)
    np.testing.assert_allclose(ours.predict(x, verbose=0), expected, atol=1e-5 * np.abs(expected).max())
    assert ours.count_params() == 11_186_112, "the count of keras-hub's resnet_18_imagenet"
    with pytest.raises(ValueError, match="is not a ResNet-18"):
        copy_weights(keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs)), theirs)
