"""`--detector.features`: names of a backbone's outputs."""

import pytest

from tfdetect.models.detectors.clip import Clip
from tfdetect.models.pretrained.feature_names import parse


@pytest.mark.parametrize(("text", "expected"), [
    ("projected", "projected"), ("pooled+penultimate", "penultimate pooled"), ("penultimate+pooled", "penultimate pooled"),
    ("layers:9,6", "layers:6 layers:9"), ("pooled + patches:2,10+layers:3", "layers:3 patches:2 patches:10 pooled"),
])  # fmt: skip
def test_outputs_have_one_order(text, expected):
    assert " ".join(map(str, parse(text))) == expected


@pytest.mark.parametrize(("text", "message"), [
    ("penultimat", r"no features 'penultimat', expected projected, pooled.*Perhaps you meant penultimate\.$"),
    ("pooled+layer:6", r"no features 'layer:6', .*Perhaps you meant layers\.$"),
    ("layers", "no features 'layers', expected"), ("layers:0", "no features 'layers:0'"),
    ("layers:6,", "no features 'layers:6,'"),
    ("pooled:1", "no features 'pooled:1'"), ("", "no features ''"), ("pooled+", "no features ''"),
    ("layers:6+layers:6", "name layers:6 twice"),
])  # fmt: skip
def test_wrong_names_are_refused_when_flags_are_parsed(text, message):
    with pytest.raises(ValueError, match=message):
        Clip(preset="tiny", features=text)
