"""Training is reproducible, resumes after a kill with the same result, and keeps the best epoch."""

import json

import keras
import numpy as np
import pandas as pd
import pytest
from in_process import decode_here

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
from tfdetect.models.layers.common import DetectionAndAttributionLoss, ScoreAUC, clip_input, score_layer
from tfdetect.settings import Data, Run, Train
from tfdetect.training import callbacks, fit


class Small(CnnLstm):
    """A network that is compiled quickly and has whatever a checkpoint must keep: weights, batch statistics and seeds."""

    def build(self, clip_shape):
        inputs, pixels = clip_input(clip_shape)
        x = keras.layers.Reshape((clip_shape[0], -1))(pixels)
        x = keras.layers.BatchNormalization()(keras.layers.Dense(4, activation="relu", name="frames")(x))
        x = keras.layers.Dropout(self.dropout)(keras.layers.Flatten()(x))
        return keras.Model(inputs, score_layer(keras.layers.Dense(8, activation="relu", name="features")(x)))


DETECTOR = Small(dropout=0.3)
SETTINGS = Train(epochs=4, batch=8, patience=4)


@pytest.fixture(scope="module")
def data(videos, tmp_path_factory):
    """(Table of decoded videos, their cache)."""
    cache = Cache(tmp_path_factory.mktemp("cache"), ClipSpec(4, 32, still=True))
    return decode.prepare(manifest.split(detect.read(videos)), cache, runner=decode_here), cache


class StopAfter(keras.callbacks.Callback):
    """Stop after a number of steps like a kill: the current epoch is not saved."""

    def __init__(self, steps):
        super().__init__()
        self.remaining = steps

    def on_train_batch_end(self, batch, logs=None):
        self.remaining -= 1
        if not self.remaining:
            raise KeyboardInterrupt


def train(folder, data, settings=SETTINGS, extra=(), detector=DETECTOR):
    return fit.fit(detector, *data, settings, folder / "checkpoints", folder / "m.keras", list(extra))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data):
    """(Folder, result) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, train(folder, data)


def test_history_depends_on_the_seed_alone(tmp_path, data, uninterrupted):
    assert train(tmp_path / "b", data).history.equals(uninterrupted[1].history)
    other = train(tmp_path / "c", data, Train(epochs=1, batch=8, seed=1)).history
    assert other["loss"][0] != uninterrupted[1].history["loss"][0]


def assert_killed_run_resumes(folder, data, uninterrupted, detector=DETECTOR):
    for steps in (2, 6, 5):  # in the first, second and third epoch
        with pytest.raises(KeyboardInterrupt):
            train(folder, data, extra=[StopAfter(steps)], detector=detector)
    resumed = train(folder, data, detector=detector)
    assert resumed.history.equals(uninterrupted[1].history) and resumed.best_epoch == uninterrupted[1].best_epoch
    loaded = [keras.saving.load_model(path / "m.keras") for path in (folder, uninterrupted[0])]
    weights, expected = (model.get_weights() for model in loaded)
    assert all(np.array_equal(a, b) for a, b in zip(weights, expected, strict=True))


def test_killed_run_resumes_with_the_same_result(tmp_path, data, uninterrupted):
    assert_killed_run_resumes(tmp_path, data, uninterrupted)


@pytest.mark.slow
def test_killed_run_of_cnn_lstm_resumes_with_the_same_result(tmp_path, data):
    detector, folder = CnnLstm(dropout=0.3), tmp_path / "uninterrupted"
    assert_killed_run_resumes(tmp_path / "killed", data, (folder, train(folder, data, detector=detector)), detector)


class TwoPhases(Small):
    """Two epochs with a frozen first layer, then all layers at a tenth of the learning rate."""

    def phases(self):
        def set_trainable(trainable):
            return lambda model: setattr(model.get_layer("frames"), "trainable", trainable)

        return (Phase(2, 1.0, set_trainable(False)), Phase(learning_rate_factor=0.1, prepare=set_trainable(True)))


def test_run_of_two_phases_killed_in_either_resumes_with_the_same_result(tmp_path, data):
    """It is killed at the first phase's start and end, at the second's start and in its last epoch. An epoch has three steps."""
    uninterrupted = train(tmp_path / "uninterrupted", data, detector=TwoPhases())
    for steps in (2, 6, 4, 4):  # in epoch 1, 2, 3 and 4, counted from the last epoch that was completed
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", data, extra=[StopAfter(steps)], detector=TwoPhases())
    resumed = train(tmp_path / "killed", data, detector=TwoPhases())
    assert resumed.history.equals(uninterrupted.history) and len(uninterrupted.history) == 4


def test_frozen_layers_change_in_the_second_phase_only(tmp_path, data):
    train(tmp_path, data, Train(epochs=3, batch=8), [SaveKernel(tmp_path)], TwoPhases())
    keras.utils.set_random_seed(SETTINGS.seed)
    start = np.array(TwoPhases().build((4, 32, 32, 3)).get_layer("frames").get_weights()[0])
    assert [np.array_equal(np.load(tmp_path / f"{epoch}.npy"), start) for epoch in range(3)] == [True, True, False]


class SaveKernel(keras.callbacks.Callback):
    """Save the first kernel at the end of each epoch."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        np.save(self.folder / f"{epoch}.npy", self.model.get_layer("frames").get_weights()[0])


def test_saved_model_is_that_of_the_best_epoch(data, uninterrupted):
    folder, result = uninterrupted
    best = result.history.sort_values(["val_auc", "val_loss"], ascending=[False, True]).iloc[0]
    assert result.best_epoch == best["epoch"]
    table, cache = data
    validation = table[table["split"] == "validation"].reset_index(drop=True)
    scores = fit.predict_scores(models.load(folder / "m.keras"), validation, cache, CnnLstm(), 8)
    losses = np.logaddexp(0, scores) - validation["label"] * scores
    assert losses.mean() == pytest.approx(best["val_loss"], abs=1e-5)
    assert metrics.auc(validation["label"], scores) == best["val_auc"]
    assert metrics.average_precision(validation["label"], scores) == best["val_ap"]


def test_best_epoch_is_chosen_by_the_exact_auc_of_files(tmp_path):
    """Every sigmoid of these scores is 1 in float32, and frames rank differently from the means of their files."""
    labels, rng = np.arange(40) % 2, np.random.default_rng(0)
    file_scores = 40 + 2 * labels + rng.normal(0, 1, 40)
    rows = pd.DataFrame({"path": np.repeat([f"{number}.mp4" for number in range(40)], 4), "label": np.repeat(labels, 4)})
    rows[["group", "source"]] = ""
    frames = (file_scores[:, None] + [[-9.0, 9.0, -6.0, 6.0]]).astype(np.float32).reshape(-1, 1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    callback, logs = callbacks.ExactValidationMetrics(tmp_path, rows, frames, [2]), {"loss": 1.0}
    callback.set_model(model)
    callback.on_epoch_end(0, logs)
    assert logs == {"loss": 1.0}, "the first epoch is not evaluated"
    callback.on_epoch_end(1, logs)
    binned = ScoreAUC()
    binned.update_state(rows[["label"]].to_numpy(np.float32), frames)
    exact = metrics.auc(labels, file_scores)
    assert logs["val_auc"] == exact > 0.9 and logs["val_ap"] == metrics.average_precision(labels, file_scores)
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
    resumed = end([])
    assert (resumed.epoch, resumed.state["best_epoch"], resumed.done) == (3, 2, False)
    resumed = end([1.5], start=3)
    assert resumed.done and resumed.state["best_epoch"] == 2 and model.stop_training
    assert not end([0.5], start=4).done, "a better epoch restarts the count"
    assert not end([0.5], start=5).done and end([0.5], start=6).done, "an equal one does not"
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["epoch-0005.npz", "epoch-0007.npz", "state.json"]


def test_class_weights_balance_the_classes(data):
    table, _ = data
    rows = table[table["label"] == 0].head(3)
    weights = dataset.class_weights(pd.concat([rows, table[table["label"] == 1].head(9)]))
    np.testing.assert_allclose(weights, [2.0] * 3 + [2 / 3] * 9, rtol=1e-6)


def test_only_resampling_draws_both_classes_equally(data):
    table, cache = data
    rows = pd.concat([table[table["label"] == 0].head(3), table[table["label"] == 1].head(13)]).reset_index(drop=True)
    shares = {}  # method -> [share of fakes, weighted share of reals]
    for method in ("none", "weights", "resample"):
        batches = list(dataset.training_batches(rows, cache, False, Train(batch=8, balance=method), 0, 2).as_numpy_iterator())
        assert len(batches) == 2 * dataset.steps_per_epoch(rows, False, 8)
        labels, weights = (np.concatenate([batch[i].ravel() for batch in batches]) for i in (1, 2))
        shares[method] = [labels.mean(), (weights * (labels == 0)).sum() / weights.sum()]
    np.testing.assert_allclose(shares["resample"], [0.5, 0.5])
    np.testing.assert_allclose(shares["none"], [13 / 16, 3 / 16])
    np.testing.assert_allclose(shares["weights"], [13 / 16, 0.5], rtol=1e-6)


def test_mixup_takes_the_weight_of_the_nearer_class_and_selfblend_keeps_that_of_its_file(data):
    table, cache = data
    rows = pd.concat([table[table["label"] == 0].head(4), table[table["label"] == 1].head(12)]).reset_index(drop=True)

    def draw(augment):
        settings = Train(batch=16, augment=augment)
        _, labels, weights = next(dataset.training_batches(rows, cache, False, settings, 0, 1).as_numpy_iterator())
        return labels.ravel(), weights

    for augment in ("mixup(0.2)", "mixup(0.9)", "flip|mixup(0,1)|blur(1,p=0.5)", "mixup(0.4)|mixup(0.4)"):
        labels, weights = draw(augment)
        assert set(labels) - {0.0, 1.0}, "some are mixed"
        np.testing.assert_allclose(weights, np.where(labels > 0.5, 2 / 3, 2.0), rtol=1e-6)
    labels, weights = draw("selfblend(0.5)")
    assert (labels == 1).all() and sorted(weights) == pytest.approx([2 / 3] * 12 + [2.0] * 4)


def test_focal_weights_the_loss_of_the_detector():
    """For the default loss it equals Keras' focal loss; label smoothing and the attribution loss are kept."""
    labels, scores = np.array([[0], [1], [1], [0]], np.float32), np.array([[-2], [0.5], [3], [4]], np.float32)
    for detector, smoothing in ((CnnLstm(), 0.0), (Residual(smoothing=0.2), 0.2)):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        fit.compile_phase(model, detector, Phase(), Train(balance="focal"), 1, 1)
        correct = 1 / (1 + np.exp(-np.where(labels == 1, scores, -scores)))[:, 0]
        loss = keras.losses.binary_crossentropy(labels, scores, from_logits=True, label_smoothing=smoothing)
        assert float(model.loss(labels, scores)) == pytest.approx(float(np.mean((1 - correct) ** 2 * np.array(loss))), rel=1e-5)
        if not smoothing:
            expected = keras.losses.BinaryFocalCrossentropy(from_logits=True)
            assert float(model.loss(labels, scores)) == pytest.approx(float(expected(labels, scores)))
    attribution = keras.losses.deserialize(keras.losses.serialize(DetectionAndAttributionLoss(model.loss)))
    labels_and_sources = np.concatenate([labels, [[-1], [0], [1], [-1]]], 1)
    outputs = np.concatenate([scores, np.zeros((4, 2), np.float32)], 1)
    expected = float(model.loss(labels, scores)) + np.log(2) / 2
    assert float(attribution(labels_and_sources, outputs)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("detector", [Clip(head="svm"), Clip(head="triplet_svm"), OneClassAutoencoder()])
def test_focal_is_refused_for_scores_not_trained_by_a_loss(detector):
    with pytest.raises(ValueError, match="--train.balance focal"):
        Run(detector, Data(size=64), Train(balance="focal"))


def test_zero_epochs_save_the_initial_weights(tmp_path, data):
    result = train(tmp_path, data, Train(epochs=0, batch=8))
    assert result.history.empty and result.best_epoch == 0
    keras.utils.set_random_seed(0)
    start = DETECTOR.build((4, 32, 32, 3)).get_weights()
    saved = keras.saving.load_model(tmp_path / "m.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(saved, start, strict=True))


def test_diverging_loss_is_reported(tmp_path, data):
    with pytest.raises(ValueError, match=r"lower --train\.learning_rate"):
        train(tmp_path, data, Train(epochs=1, batch=8, learning_rate=1e30))
    assert not (tmp_path / "m.keras").exists()


def test_finished_run_is_trained_further_with_its_optimizer_or_from_its_best_epoch(tmp_path, data, uninterrupted, monkeypatch):
    expected = uninterrupted[1].history
    short = Train(**{**vars(SETTINGS), "epochs": 2})
    for limit in (callbacks.MAX_KEPT_BYTES, 0):
        folder = tmp_path / f"{limit}"
        monkeypatch.setattr(callbacks, "MAX_KEPT_BYTES", limit)
        train(folder, data, short)
        best = keras.saving.load_model(folder / "m.keras").get_weights()
        callbacks.keep_for_resume(folder / "checkpoints")
        assert bool([*folder.glob("checkpoints/*/epoch-*.npz")]) == bool(limit)
        with pytest.raises(KeyboardInterrupt):  # it may even be killed meanwhile
            train(folder, data, extra=[StopAfter(4)])
        longer = train(folder, data)
        assert len(longer.history) == 4 and longer.history.head(2).equals(expected.head(2))
        assert longer.history.equals(expected) == bool(limit)
        if longer.best_epoch <= 2:
            saved = keras.saving.load_model(folder / "m.keras").get_weights()
            assert all(np.array_equal(a, b) for a, b in zip(best, saved, strict=True))


def test_patience_restarts_when_a_run_that_stopped_early_is_trained_further(tmp_path):
    folder = tmp_path / "worker-0"
    history = [{"epoch": number + 1, "val_loss": value} for number, value in enumerate([1.0, 2.0, 3.0])]
    state = {"history": history, "last": "", "best": "", "best_epoch": 1}
    write_json(folder / "state.json", state)
    assert callbacks.Checkpoint(folder, "val_loss", 2).done
    callbacks.keep_for_resume(tmp_path)
    resumed = callbacks.Checkpoint(folder, "val_loss", 2)
    assert not resumed.done and resumed.epoch == 3
    resumed.state["history"] += [{"epoch": 4, "val_loss": 4.0}, {"epoch": 5, "val_loss": 5.0}]
    assert not resumed.done
    resumed.state["history"] += [{"epoch": 6, "val_loss": 6.0}]
    assert resumed.done and resumed.state["best_epoch"] == 1


def test_state_is_json(uninterrupted):
    state = json.loads((uninterrupted[0] / "checkpoints" / "worker-0" / "state.json").read_text())
    assert state["history"][0]["epoch"] == 1 and set(state) == {"history", "last", "best", "best_epoch", "since"}


def test_cosine_schedule_warms_up_for_one_epoch_and_decays_to_zero():
    schedule = fit.learning_rate(0.1, "cosine", epochs=5, steps=10)
    rates = [float(schedule(step)) for step in range(51)]
    assert rates[0] == 0 and rates[10] == pytest.approx(0.1) and rates[50] == pytest.approx(0, abs=1e-6)
    assert all(np.diff(rates[:11]) > 0) and all(np.diff(rates[10:]) <= 0) and rates[30] == pytest.approx(0.05)
    assert fit.learning_rate(0.1, "constant", 5, 10) == 0.1
