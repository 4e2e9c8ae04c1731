"""Augmented training: a run that was interrupted sees the clips that it would have seen."""

import dataclasses

import keras
import pytest
from in_process import decode_here

from tfdetect.data import manifest
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.settings import Train
from tfdetect.training import fit

AUGMENT = "flip|jpeg(30,100,p=0.5)|noise(0,9)|mixup(0,0.5,p=0.5)"


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("cache"), ClipSpec(2, 16, still=True))
    return decode.prepare(manifest.split(detect.read(videos)), cache, runner=decode_here), cache


@pytest.mark.parametrize("size", [40, 3, 1])
def test_a_resumed_run_sees_the_same_draws(prepared, size):
    table, cache = prepared
    table = table.head(size).reset_index(drop=True)

    def batches(first, epochs, augment=AUGMENT, seed=7):
        data = dataset.training_batches(table, cache, False, Train(batch=8, seed=seed, augment=augment), first, epochs)
        return [(clips.tobytes(), labels.tobytes()) for clips, labels, _ in data.as_numpy_iterator()]

    whole, steps = batches(0, 3), dataset.steps_per_epoch(table, False, 8)
    assert len(whole) == 3 * steps and len(set(whole)) == len(whole)
    assert batches(0, 1) + batches(1, 2) + batches(2, 3) == whole
    assert not set(batches(0, 3, seed=8)) & set(whole)
    assert batches(0, 1, "") == batches(0, 1, "blur(0)"), "augmentation does not change the order"


@pytest.mark.slow
def test_a_killed_run_with_augmentation_resumes_to_the_same_result(prepared, tmp_path):
    settings = Train(epochs=2, batch=8, augment=AUGMENT)

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                raise KeyboardInterrupt

    def train(folder, *extra):
        found = fit.fit(Cnn(width=2), *prepared, settings, tmp_path / folder, tmp_path / f"{folder}.keras", list(extra))
        return found.history

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", Kill())
    assert train("killed").equals(whole)
    settings = dataclasses.replace(settings, augment="")
    assert not train("plain").equals(whole)
