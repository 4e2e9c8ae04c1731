"""tf.distribute: each strategy in processes of its own, judged against a single process on the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfdetect import backend
from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.training import devices

ROOT = Path(__file__).parents[2]
FIT = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd, tensorflow as tf
name, table, cache, out, devices = sys.argv[1:]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
from tfdetect.settings import Train
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.training import fit
out = Path(out)
out.mkdir(parents=True, exist_ok=True)
found = fit.fit(CnnLstm(dropout=0.0), pd.read_csv(table, keep_default_na=False), Cache(Path(cache), ClipSpec(4, 32, still=True)),
                Train(epochs=2, batch=8, strategy=name), out / "checkpoints", out / "m.keras", [])
import keras
if found.chief:
    weights = [w.tolist() for w in keras.saving.load_model(out / "m.keras").get_weights()]
    print("RESULT " + json.dumps({"history": found.history.to_dict("list"), "weights": weights}))
folder = out / "checkpoints" / f"worker-{0 if found.chief else 1}"
last = np.load(folder / json.loads((folder / "state.json").read_text())["last"])
print("SUMS " + json.dumps({name: float(np.abs(last[name].astype(float)).sum()) for name in last}))
"""


@pytest.fixture(scope="module")
def place(videos, tmp_path_factory):
    place = tmp_path_factory.mktemp("distributed")
    cache = Cache(place / "cache", ClipSpec(4, 32, still=True))
    decode.prepare(manifest.split(detect.read(videos)), cache, workers=2).to_csv(place / "table.csv", index=False)
    return place


def start(place, strategy, out, devices=1, cluster=None, task=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    if cluster:
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    command = [sys.executable, "-c", FIT, strategy, place / "table.csv", place / "cache", place / out, str(devices)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment, **pipes)


def finish(process):
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err[-3000:]
    told = [line.split(" ", 1) for line in out.splitlines() if line.startswith(("RESULT ", "SUMS "))]
    return {name: json.loads(text) for name, text in told}


@pytest.fixture(scope="module")
def alone(place):
    return finish(start(place, "single", "single"))["RESULT"]


def same(result, alone):
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(result["history"][name], alone["history"][name], atol=1e-4)
    for ours, theirs in zip(result["weights"], alone["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_mirrored_on_two_devices_equals_one(place, alone):
    same(finish(start(place, "mirrored", "mirrored", devices=2))["RESULT"], alone)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.parametrize("first", ["worker", "chief"])
def test_two_workers_equal_one(place, alone, first):
    """Also where the first is a chief and the other is worker 0."""
    one, two = (f"127.0.0.1:{port}" for port in free_ports(2))
    cluster = {"worker": [one, two]} if first == "worker" else {"chief": [one], "worker": [two]}
    tasks = [{"type": first, "index": 0}, {"type": "worker", "index": 1 if first == "worker" else 0}]
    workers = [start(place, "multiworker", f"workers-{first}", cluster=cluster, task=task) for task in tasks]
    chief, other = (finish(worker) for worker in workers)
    same(chief["RESULT"], alone)
    assert "RESULT" not in other, "only the chief writes the model"
    assert chief["SUMS"] == other["SUMS"], "the same weights on both"
    for name in ("val_auc", "val_ap"):
        assert chief["RESULT"]["history"][name] == alone["history"][name]


@pytest.mark.parametrize("cluster, kind, index, place", [
    (None, None, None, 0), ({"worker": ["a", "b"]}, "worker", 0, 0), ({"worker": ["a", "b"]}, "worker", 1, 1),
    ({"chief": ["a"], "worker": ["b", "c"]}, "chief", 0, 0), ({"chief": ["a"], "worker": ["b", "c"]}, "worker", 0, 1),
    ({"chief": ["a"], "worker": ["b", "c"]}, "worker", 1, 2)])  # fmt: skip
def test_the_chief_is_the_task_of_that_type_or_else_worker_0(monkeypatch, cluster, kind, index, place):
    told = {"cluster": cluster, "task": {"type": kind, "index": index}} if cluster else {}
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))
    assert backend.worker_index() == place


@pytest.mark.parametrize("told, said", [('{"task": {"type": "evaluator", "index": 0}}', "'evaluator'; only chief and"),
                                        ('{"task": {"type": "ps"}}', "'ps'; only"), ("chief", "TF_CONFIG is not valid"),
                                        ('["chief"]', "TF_CONFIG is not valid")])  # fmt: skip
def test_a_task_that_does_not_train_is_refused(monkeypatch, told, said):
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(ValueError, match=said):
        backend.worker_index()


@pytest.mark.parametrize("gpus, nvidia, hidden, lines", [
    (["H100", "H100"], True, "", ["2 GPUs (H100)"]), ([], False, None, ["no GPU"]), ([], True, "-1", ["no GPU"]),
    ([], True, None, ["no GPU", "cannot be loaded"])])  # fmt: skip
def test_devices_are_said_and_a_gpu_that_is_not_used(monkeypatch, gpus, nvidia, hidden, lines):
    monkeypatch.setattr(devices, "gpus", lambda: gpus)
    monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: nvidia)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    chatter = "W0000 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure"
    found = devices.describe("mixed_float16", chatter).splitlines()
    assert len(found) == len(lines) and all(part in line for part, line in zip(lines, found, strict=True))
    assert "CPU core" in found[0] and "; mixed_float16; Keras 3" in found[0] and "on TensorFlow 2" in found[0]
    assert len(found) == 1 or "pip install 'tensorflow[and-cuda]'" in found[1]


def test_multiworker_without_a_cluster_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs TF_CONFIG"):
        devices.strategy("multiworker")


def test_tpu_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="found no TPU"):
        devices.strategy("tpu")


def test_auto_is_single_without_several_gpus():
    assert devices.strategy("auto") is None and devices.strategy("single") is None
