"""Parameter counts and the scores of fixed weights. A change of either breaks every saved model."""

import numpy as np
import pytest
from detectors import LARGE, clip_shape, make_detector

from tfdetect import models  # noqa: F401
from tfdetect.detector import REGISTRY

COUNTS = {  # image size, and number of parameters at that size
    "backbone": (64, 489),  # network tiny
    "clip": (64, 24_482),  # preset tiny
    "cnn": (256, 2_194_721),
    "cnn_lstm": (64, 552_609),
    "mesonet": (256, 28_073),
    "residual": (256, 510_629),
    "squeezenet": (256, 748_737),
    "resnet50": (64, 23_587_712 + 2_049),
    "oc_ae": (100, 22_692_708),
    "oc_fakedect": (100, 23_742_308),
    "resnet_vae": (224, 29_078_660),
    "feature_oneclass": (64, 798_336),
    "fusion": (64, 55_318),
    "inception": (75, 21_802_784 + 2_049),
}
SCORES = {
    "backbone": -0.050820485,
    "clip": 0.015210119,
    "cnn": -0.018905653,
    "cnn_lstm": 0.043289557,
    "feature_oneclass": 1638.5752,
    "fusion": 0.47657472,
    "mesonet": 0.07008258,
    "oc_ae": 0.5098752,
    "oc_fakedect": 0.5240277,
    "residual": -0.044405147,
    "squeezenet": -0.49161679,
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_number_of_parameters(name):
    size, count = COUNTS[name]
    shape = (*clip_shape(REGISTRY[name])[:1], size, size, 3)
    assert make_detector(REGISTRY[name]).build(shape).count_params() == count


def test_every_detector_has_a_count_and_every_small_detector_a_score():
    assert set(COUNTS) == set(REGISTRY) and set(SCORES) == set(REGISTRY) - set(LARGE)


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - set(LARGE)))
def test_the_score_with_fixed_weights(name):
    shape = clip_shape(REGISTRY[name])
    model = make_detector(REGISTRY[name]).build(shape)
    for number, weight in enumerate(model.weights):
        if "seed" not in weight.path and "int" not in str(weight.dtype):
            values = np.random.default_rng(number).normal(0, 0.05, weight.shape)
            weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    clip = (np.indices(shape[:3]).sum(0)[..., None] * [3, 5, 7] % 256).astype(np.uint8)
    assert model.predict(clip[None], verbose=0)[0, 0] == pytest.approx(SCORES[name], rel=1e-3)
