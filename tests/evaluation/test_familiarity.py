"""Familiarity: p-values are uniform for files like those of training, by simulation; the reason names the part that is far."""

import numpy as np
import pytest

from tfdetect.errors import UserError
from tfdetect.evaluation.familiarity import OTHER_CONTENT, OTHER_PROCESSING, Familiarity, Vectors, fit


def draw(rng, files, frames=1, shift=(0.0, 0.0), per_group=1):
    """Correlated content of 20 values and heavy-tailed processing of 8, of frames that share most of what their file is."""
    mix = np.random.default_rng(0).normal(size=(20, 20))
    file = np.repeat(np.arange(files), frames)
    content = rng.normal(size=(files, 20))[file] + 0.3 * rng.normal(size=(files * frames, 20))
    processing = rng.standard_t(5, size=(files, 8))[file] + 0.3 * rng.normal(size=(files * frames, 8))
    return Vectors(np.float32(content @ mix + shift[0]), np.float32(processing + shift[1]), file, file // per_group)


def p_values(known, rows):
    """Return the p-value and the reason for each file, whose distances are the means over its frames."""
    counts = np.bincount(rows.files)
    means = [np.bincount(rows.files, space.distances(x)) / counts
             for space, x in ((known.content, rows.content), (known.processing, rows.processing))]  # fmt: skip
    return known.p_values(*means), known.reasons(*means)


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("frames", [1, 3])
def test_of_files_like_those_of_validation_the_level_is_marked(rng, frames, folds):
    """Over 40 draws of 60 validation files: the expected share is floor(0.05 x 61) / 61 = 4.9 %, its standard error about 0.5 %.
    Without validation files, those of training are judged by their distances from the others, which are larger."""
    marked = []
    for _ in range(40):
        usual = None if folds else draw(rng, 60, frames)
        known = fit("layer", draw(rng, 60 if folds else 120, frames), usual)
        values, reasons = p_values(known, draw(rng, 100, frames))
        assert ((reasons != "") == (values <= 0.05)).all() and values.min() >= 1 / 61 - 1e-9
        marked.append((values <= 0.05).mean())
    assert np.mean(marked) == pytest.approx(3 / 61, abs=0.03 if folds else 0.015)


def test_groups_count_once(rng):
    """20 groups of 10 equal files are 20 observations: no p-value is below 1 / 21, and weights add up to groups."""
    usual = draw(rng, 20)
    copies = usual[np.repeat(np.arange(20), 10)]
    copies = Vectors(copies.content, copies.processing, np.arange(200), copies.groups)
    once, often = (fit("layer", draw(np.random.default_rng(1), 100), rows) for rows in (usual, copies))
    new = draw(rng, 50)
    np.testing.assert_allclose(p_values(once, new)[0], p_values(often, new)[0])
    assert often.groups == 20 and p_values(often, draw(rng, 5, shift=(99, 0)))[0] == pytest.approx(1 / 21)


def test_the_reason_is_the_part_that_is_far(rng):
    known = fit("layer", draw(rng, 200), draw(rng, 100))
    for shift, reason in (((50, 0), OTHER_CONTENT), ((0, 50), OTHER_PROCESSING), ((50, 50), OTHER_CONTENT)):
        values, reasons = p_values(known, draw(rng, 50, shift=shift))
        assert (values == 1 / 101).all() and (reasons == reason).mean() > 0.85 and (reasons != "").all()


def test_a_validation_file_is_as_usual_as_itself(rng):
    usual = draw(rng, 50)
    known = fit("layer", draw(rng, 100), usual)
    assert sorted(p_values(known, usual)[0]) == pytest.approx((np.arange(50) + 2) / 51)


def test_a_level_below_what_validation_can_show_is_refused(rng):
    reference, usual = draw(rng, 60), draw(rng, 18)
    with pytest.raises(UserError, match=r"0\.05 is out of reach.* needs 19 groups of validation files, but there are 18"):
        fit("layer", reference, usual)
    known = fit("layer", reference, draw(rng, 19))
    assert known.with_level(None) is known and known.with_level(0.2).level == 0.2
    with pytest.raises(UserError, match=r"needs 99 groups of validation files, but there are 19\. Raise it"):
        known.with_level(0.01)
    values, reasons = p_values(known.with_level(0), draw(rng, 5, shift=(99, 99)))
    assert set(reasons) == {""} and values == pytest.approx(1 / 20)


@pytest.mark.parametrize("content", [np.zeros((40, 3)), np.repeat(np.eye(4), 10, axis=0), np.ones((40, 30)) * np.arange(30)])
def test_vectors_without_spread_still_have_distances(content):
    rows = Vectors(np.float32(content), np.zeros((40, 2), np.float32), np.arange(40), np.arange(40))
    known = fit("layer", rows, rows)
    assert np.isfinite(known.content.distances(content)).all()
    assert (known.content.distances(content + 5) > known.limit).all()


def test_more_features_than_files_are_reduced(rng):
    wide = np.float32(rng.normal(size=(40, 600)))
    known = fit("layer", Vectors(wide, np.zeros((40, 2), np.float32), np.arange(40), np.arange(40)))
    assert known.content.whitening.shape == (600, 40)


def test_it_is_stored_without_loss_and_damage_is_told(rng, tmp_path):
    known = fit("frames/conv2d", draw(rng, 80), draw(rng, 40), 0.1)
    known.save(tmp_path / "a.npz")
    loaded = Familiarity.load(tmp_path / "a.npz")
    new = draw(rng, 30)
    assert (loaded.layer, loaded.level, loaded.groups) == ("frames/conv2d", 0.1, 40)
    assert all((p_values(loaded, new)[k] == p_values(known, new)[k]).all() for k in (0, 1))
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    with pytest.raises(UserError, match=r"a\.npz is damaged"):
        Familiarity.load(tmp_path / "a.npz")
