"""What the messages of all errors share: the nearest name, and least values of flags."""

from types import SimpleNamespace

import pytest

from tfdetect.errors import UserError, nearest, require_minimum, suggestion

NAMES = ("train", "StyleGAN", "jpeg")


@pytest.mark.parametrize(("name", "meant"), [("trian", "train"), ("TRAIN", "train"), ("stylegam", "StyleGAN"), ("jpg", "jpeg"),
                                             ("xyz", ""), ("", "")])  # fmt: skip
def test_the_nearest_name_is_suggested_whatever_its_letter_case(name, meant):
    assert nearest(name, NAMES) == meant
    assert suggestion(name, NAMES, "--") == (f" Perhaps you meant --{meant}." if meant else "")


def test_a_setting_below_the_minimum_is_named_and_none_is_allowed():
    settings = SimpleNamespace(epochs=2, workers=None, batch=0)
    require_minimum(1, "train", settings, "epochs", "workers")
    with pytest.raises(UserError, match=r"--train\.batch must be at least 1, got 0\."):
        require_minimum(1, "train", settings, "epochs", "batch")
