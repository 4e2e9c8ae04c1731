"""A run can be repeated, and gone on with after a kill, to the same result."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from tfdetect import models
from tfdetect.data import manifest
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.detector import Phase
from tfdetect.evaluation import metrics
from tfdetect.files import write_json
from tfdetect.models.detectors.clip import Clip
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.models.detectors.oc_fakedect import OneClassAutoencoder
from tfdetect.models.detectors.residual import Residual
from tfdetect.models.layers.common import DetectionAndAttributionLoss, ScoreAUC
from tfdetect.settings import Data, Run, Train
from tfdetect.training import callbacks, fit

DETECTOR = CnnLstm(dropout=0.3)
SETTINGS = Train(epochs=4, batch=8, patience=4)


@pytest.fixture(scope="module")
def data(videos, tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("cache"), ClipSpec(4, 32, still=True))
    return decode.prepare(manifest.split(detect.read(videos)), cache, workers=2), cache


class StopAfter(keras.callbacks.Callback):
    """As a kill after so many steps: nothing of the epoch at hand is saved."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def run(folder, data, settings=SETTINGS, extra=()):
    return fit.fit(DETECTOR, *data, settings, folder / "checkpoints", folder / "m.keras", list(extra))


def test_same_seed_same_history_and_another_seed_another(tmp_path, data):
    first, second = (run(tmp_path / name, data).history for name in ("a", "b"))
    assert first.equals(second)
    other = run(tmp_path / "c", data, Train(epochs=1, batch=8, seed=1)).history
    assert other["loss"][0] != first["loss"][0]


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, data):
    whole = run(tmp_path / "whole", data)
    for steps in (2, 6, 5):  # in the first epoch, in the second, in the third
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", data, extra=[StopAfter(steps)])
    resumed = run(tmp_path / "killed", data)
    assert resumed.history.equals(whole.history) and resumed.best_epoch == whole.best_epoch
    ours, theirs = (keras.saving.load_model(tmp_path / name / "m.keras").get_weights() for name in ("killed", "whole"))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


class Phased(CnnLstm):
    """Two epochs with the convolutions frozen, then all at a tenth of the rate."""

    def phases(self):
        def train(on):
            return lambda model: setattr(model.get_layer("frames"), "trainable", on)

        return (Phase(2, 1.0, train(False)), Phase(learning_rate_factor=0.1, prepare=train(True)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """A run of two phases that nothing disturbs."""
    place = tmp_path_factory.mktemp("whole")
    return fit.fit(Phased(), *data, SETTINGS, place / "whole", place / "whole.keras", [])


@pytest.mark.parametrize("steps", [(2, 6), (8,), (9, 1)], ids=["in the first phase", "between", "in the second"])
def test_a_run_of_two_phases_killed_in_either_goes_on_to_the_same_result(tmp_path, data, whole, steps):
    """Three steps an epoch: the eighth is in the third epoch, the first of the second phase."""
    for count in steps:
        with pytest.raises(KeyboardInterrupt):
            fit.fit(Phased(), *data, SETTINGS, tmp_path / "killed", tmp_path / "killed.keras", [StopAfter(count)])
    resumed = fit.fit(Phased(), *data, SETTINGS, tmp_path / "killed", tmp_path / "killed.keras", [])
    assert resumed.history.equals(whole.history) and len(whole.history) == 4


def test_the_first_phase_leaves_alone_what_it_freezes_and_the_second_does_not(tmp_path, data):
    def kernel(epochs):
        settings = Train(epochs=epochs, batch=8)
        fit.fit(Phased(), *data, settings, tmp_path / f"{epochs}", tmp_path / "m.keras", [Kernel(tmp_path / "w.npy")])
        return np.load(tmp_path / "w.npy")

    keras.utils.set_random_seed(SETTINGS.seed)
    start = np.array(Phased().build((4, 32, 32, 3)).get_layer("frames").get_weights()[0])
    assert np.array_equal(kernel(2), start) and not np.array_equal(kernel(3), start)


class Kernel(keras.callbacks.Callback):
    """Writes the first kernel at the end of each epoch."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        np.save(self.path, self.model.get_layer("frames").get_weights()[0])


def test_the_kept_model_is_that_of_the_best_validation(tmp_path, data):
    found = run(tmp_path, data)
    best = found.history.sort_values(["val_auc", "val_loss"], ascending=[False, True]).iloc[0]
    assert found.best_epoch == best["epoch"]
    table, cache = data
    held = table[table["split"] == "validation"].reset_index(drop=True)
    scores = fit.predict_scores(models.load(tmp_path / "m.keras"), held, cache, CnnLstm(), 8)
    losses = np.logaddexp(0, scores) - held["label"] * scores
    assert losses.mean() == pytest.approx(best["val_loss"], abs=1e-5)
    assert metrics.auc(held["label"], scores) == best["val_auc"]
    assert metrics.average_precision(held["label"], scores) == best["val_ap"]


def test_the_epoch_is_picked_by_the_exact_auc_of_files_however_certain_the_detector_is(tmp_path):
    """Scores so high that every sigmoid is 1 in 32 bits; and the frames of a file are ranked otherwise than their mean."""
    labels, rng = np.arange(40) % 2, np.random.default_rng(0)
    files = 40 + 2 * labels + rng.normal(0, 1, 40)
    rows = pd.DataFrame({"path": np.repeat([f"{number}.mp4" for number in range(40)], 4), "label": np.repeat(labels, 4)})
    rows[["group", "source"]] = ""
    frames = (files[:, None] + [[-9.0, 9.0, -6.0, 6.0]]).astype(np.float32).reshape(-1, 1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    judge, logs = callbacks.ExactValidationMetrics(tmp_path, rows, frames, [2]), {"loss": 1.0}
    judge.set_model(model)
    judge.on_epoch_end(0, logs)
    assert logs == {"loss": 1.0}, "the first epoch is not judged"
    judge.on_epoch_end(1, logs)
    binned = ScoreAUC()
    binned.update_state(rows[["label"]].to_numpy(np.float32), frames)
    exact = metrics.auc(labels, files)
    assert logs["val_auc"] == exact > 0.9 and logs["val_ap"] == metrics.average_precision(labels, files)
    assert abs(float(binned.result()) - exact) > 0.2 and abs(metrics.auc(rows["label"], frames[:, 0]) - exact) > 0.2
    assert logs["val_loss"] == pytest.approx(float(np.mean(np.logaddexp(0, frames[:, 0]) - rows["label"] * frames[:, 0])))


def test_patience_counts_from_the_best_epoch_and_survives_a_restart(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    def end(values, start=0):
        checkpoint = callbacks.Checkpoint(tmp_path, "val_loss", 2)
        checkpoint.set_model(model)
        for epoch, value in enumerate(values, start):
            checkpoint.on_epoch_end(epoch, {"val_loss": value})
        return checkpoint

    assert not end([3.0, 1.0, 2.0]).done
    again = end([])
    assert (again.epoch, again.state["best_epoch"], again.done) == (3, 2, False)
    again = end([1.5], start=3)
    assert again.done and again.state["best_epoch"] == 2 and model.stop_training
    assert not end([0.5], start=4).done, "a better epoch starts the count anew"
    assert not end([0.5], start=5).done and end([0.5], start=6).done, "an equal one does not"
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["epoch-0005.npz", "epoch-0007.npz", "state.json"]


def test_uneven_classes_count_alike(data):
    table, _ = data
    rows = table[table["label"] == 0].head(3)
    weights = dataset.class_weights(pd.concat([rows, table[table["label"] == 1].head(9)]))
    np.testing.assert_allclose(weights, [2.0] * 3 + [2 / 3] * 9, rtol=1e-6)


def test_resampling_draws_both_classes_alike_and_the_other_ways_do_not(data):
    table, cache = data
    rows = pd.concat([table[table["label"] == 0].head(3), table[table["label"] == 1].head(13)]).reset_index(drop=True)
    found = {}
    for way in ("none", "weights", "resample"):
        batches = list(dataset.training_batches(rows, cache, False, Train(batch=8, balance=way), 0, 2).as_numpy_iterator())
        assert len(batches) == 2 * dataset.steps_per_epoch(rows, False, 8)
        labels, weights = (np.concatenate([batch[at].ravel() for batch in batches]) for at in (1, 2))
        found[way] = [labels.mean(), (weights * (labels == 0)).sum() / weights.sum()]
    np.testing.assert_allclose(found["resample"], [0.5, 0.5])
    np.testing.assert_allclose(found["none"], [13 / 16, 3 / 16])
    np.testing.assert_allclose(found["weights"], [13 / 16, 0.5], rtol=1e-6)


def test_a_mix_of_two_weighs_what_the_nearer_class_does_and_a_blended_real_what_its_file_did(data):
    table, cache = data
    rows = pd.concat([table[table["label"] == 0].head(4), table[table["label"] == 1].head(12)]).reset_index(drop=True)

    def drawn(augment):
        settings = Train(batch=16, augment=augment)
        _, labels, weights = next(dataset.training_batches(rows, cache, False, settings, 0, 1).as_numpy_iterator())
        return labels.ravel(), weights

    for augment in ("mixup(0.2)", "mixup(0.9)", "flip|mixup(0,1)|blur(1,p=0.5)", "mixup(0.4)|mixup(0.4)"):
        labels, weights = drawn(augment)
        assert set(labels) - {0.0, 1.0}, "some are mixed"
        np.testing.assert_allclose(weights, np.where(labels > 0.5, 2 / 3, 2.0), rtol=1e-6)
    labels, weights = drawn("selfblend(0.5)")
    assert (labels == 1).all() and sorted(weights) == pytest.approx([2 / 3] * 12 + [2.0] * 4)


def test_focal_weighs_the_detectors_own_loss():
    """Without anything of its own it is Keras' focal loss; label smoothing and a second level of classes stay."""
    clear = np.array([[0], [1], [1], [0]], np.float32), np.array([[-2], [0.5], [3], [4]], np.float32)
    for detector, own in ((CnnLstm(), None), (Residual(smoothing=0.2), 0.2)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        fit.compile_phase(model, detector, Phase(), Train(balance="focal"), 1, 1)
        right = 1 / (1 + np.exp(-np.where(clear[0] == 1, clear[1], -clear[1])))[:, 0]
        loss = keras.losses.binary_crossentropy(*clear, from_logits=True, label_smoothing=own or 0.0)
        assert float(model.loss(*clear)) == pytest.approx(float(np.mean((1 - right) ** 2 * np.array(loss))), rel=1e-5)
        if own is None:
            known = keras.losses.BinaryFocalCrossentropy(from_logits=True)
            assert float(model.loss(*clear)) == pytest.approx(float(known(*clear)))
    again = keras.losses.deserialize(keras.losses.serialize(DetectionAndAttributionLoss(model.loss)))
    two = np.concatenate([clear[0], [[-1], [0], [1], [-1]]], 1), np.concatenate([clear[1], np.zeros((4, 2), np.float32)], 1)
    assert float(again(*two)) == pytest.approx(float(model.loss(*clear)) + np.log(2) / 2, rel=1e-5)


@pytest.mark.parametrize("detector", [Clip(head="svm"), Clip(head="triplet_svm"), OneClassAutoencoder()])
def test_focal_is_refused_where_no_score_is_trained_by_a_loss(detector):
    with pytest.raises(ValueError, match="--train.balance focal"):
        Run(detector, Data(size=64), Train(balance="focal"))


def test_no_epochs_keep_the_weights_that_the_detector_starts_from(tmp_path, data):
    found = run(tmp_path, data, Train(epochs=0, batch=8))
    assert found.history.empty and found.best_epoch == 0
    keras.utils.set_random_seed(0)
    start = DETECTOR.build((4, 32, 32, 3)).get_weights()
    kept = keras.saving.load_model(tmp_path / "m.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(kept, start, strict=True))


def test_an_exploding_loss_is_said(tmp_path, data):
    with pytest.raises(ValueError, match=r"lower --train\.learning_rate"):
        run(tmp_path, data, Train(epochs=1, batch=8, learning_rate=1e30))
    assert not (tmp_path / "m.keras").exists()


def test_a_finished_run_goes_on_with_its_optimizer_or_from_its_best_epoch(tmp_path, data, monkeypatch):
    whole = run(tmp_path / "whole", data)
    short = Train(**{**vars(SETTINGS), "epochs": 2})
    for most in (callbacks.MAX_KEPT_BYTES, 0):
        place = tmp_path / f"{most}"
        monkeypatch.setattr(callbacks, "MAX_KEPT_BYTES", most)
        run(place, data, short)
        best = keras.saving.load_model(place / "m.keras").get_weights()
        callbacks.keep_for_resume(place / "checkpoints")
        assert bool([*place.glob("checkpoints/*/epoch-*.npz")]) == bool(most)
        with pytest.raises(KeyboardInterrupt):  # also when it is killed on the way
            run(place, data, extra=[StopAfter(4)])
        longer = run(place, data)
        assert len(longer.history) == 4 and longer.history.head(2).equals(whole.history.head(2))
        assert longer.history.equals(whole.history) == bool(most)
        if longer.best_epoch <= 2:
            again = keras.saving.load_model(place / "m.keras").get_weights()
            assert all(np.array_equal(a, b) for a, b in zip(best, again, strict=True))


def test_patience_counts_anew_in_a_run_that_stopped_early_and_is_trained_further(tmp_path):
    folder = tmp_path / "worker-0"
    history = [{"epoch": number + 1, "val_loss": value} for number, value in enumerate([1.0, 2.0, 3.0])]
    state = {"history": history, "last": "", "best": "", "best_epoch": 1}
    write_json(folder / "state.json", state)
    assert callbacks.Checkpoint(folder, "val_loss", 2).done
    callbacks.keep_for_resume(tmp_path)
    again = callbacks.Checkpoint(folder, "val_loss", 2)
    assert not again.done and again.epoch == 3
    again.state["history"] += [{"epoch": 4, "val_loss": 4.0}, {"epoch": 5, "val_loss": 5.0}]
    assert not again.done
    again.state["history"] += [{"epoch": 6, "val_loss": 6.0}]
    assert again.done and again.state["best_epoch"] == 1


def test_state_is_json(tmp_path, data):
    run(tmp_path, data, Train(epochs=1, batch=8))
    state = json.loads((tmp_path / "checkpoints" / "worker-0" / "state.json").read_text())
    assert state["history"][0]["epoch"] == 1 and set(state) == {"history", "last", "best", "best_epoch", "since"}


def test_the_cosine_rises_over_an_epoch_and_falls_to_nothing():
    schedule = fit.learning_rate(0.1, "cosine", epochs=5, steps=10)
    rates = [float(schedule(step)) for step in range(51)]
    assert rates[0] == 0 and rates[10] == pytest.approx(0.1) and rates[50] == pytest.approx(0, abs=1e-6)
    assert all(np.diff(rates[:11]) > 0) and all(np.diff(rates[10:]) <= 0) and rates[30] == pytest.approx(0.05)
    assert fit.learning_rate(0.1, "constant", 5, 10) == 0.1
