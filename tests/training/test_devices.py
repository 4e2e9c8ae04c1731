"""Distribution strategies in separate processes, against a single process with the same global batch; devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_process import decode_here

from tfdetect import backend
from tfdetect.data import manifest
from tfdetect.data.layouts import detect
from tfdetect.data.prepare import decode
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.training import devices

ROOT = Path(__file__).parents[2]
FIT = """
import json, os, signal, sys
from pathlib import Path
import numpy as np, pandas as pd, tensorflow as tf
names, table, cache, out, devices = sys.argv[1:]
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
from tfdetect import backend
from tfdetect.settings import Train
from tfdetect.data.prepare.clip_cache import Cache, ClipSpec
from tfdetect.models.detectors.cnn_lstm import CnnLstm
from tfdetect.training import fit
from tfdetect.training.callbacks import Checkpoint
import keras
epochs, save = int(os.environ.get("EPOCHS", 2)), Checkpoint.on_epoch_end

def die_before_saving(self, epoch, logs=None):
    if epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, epoch, logs)

if "DIE" in os.environ:
    Checkpoint.on_epoch_end = die_before_saving
for name in names.split(","):
    target = Path(out) / name
    target.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(table, keep_default_na=False)
    result = fit.fit(CnnLstm(dropout=0.0), rows, Cache(Path(cache), ClipSpec(4, 32, still=True)),
                     Train(epochs=epochs, batch=8, strategy=name), target / "checkpoints", target / "m.keras", [])
    if not backend.worker_index():
        weights = [w.tolist() for w in keras.saving.load_model(target / "m.keras").get_weights()]
        print(f"RESULT-{name} " + json.dumps({"history": result.history.to_dict("list"), "weights": weights}))
    folder = target / "checkpoints" / f"worker-{backend.worker_index()}"
    last = np.load(folder / json.loads((folder / "state.json").read_text())["last"])
    print(f"SUMS-{name} " + json.dumps({name: float(np.abs(last[name].astype(float)).sum()) for name in last}))
"""


@pytest.fixture(scope="module")
def folder(videos, tmp_path_factory):
    """Folder with a table of decoded videos and their cache."""
    folder = tmp_path_factory.mktemp("distributed")
    cache = Cache(folder / "cache", ClipSpec(4, 32, still=True))
    decode.prepare(manifest.split(detect.read(videos)), cache, runner=decode_here).to_csv(folder / "table.csv", index=False)
    return folder


def start(folder, strategies, out, devices=1, cluster=None, task=None, **variables):
    """Start a process that trains with each of the strategies, separated by commas, and return it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", **variables}
    if cluster:
        environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    command = [sys.executable, "-c", FIT, strategies, folder / "table.csv", folder / "cache", folder / out, str(devices)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), env=environment, **pipes)


def finish(process):
    """Wait for a training process and return the JSON objects that it printed."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err[-3000:]
    lines = [line.split(" ", 1) for line in out.splitlines() if line.startswith(("RESULT-", "SUMS-"))]
    return {name: json.loads(text) for name, text in lines}


@pytest.fixture(scope="module")
def one_process(folder):
    """Results of a single process, on one device and on two."""
    return finish(start(folder, "single,mirrored", "one", devices=2))


@pytest.fixture(scope="module")
def single(one_process):
    return one_process["RESULT-single"]


def assert_equal_results(result, expected):
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(result["history"][name], expected["history"][name], atol=1e-4)
    for weights, expected_weights in zip(result["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(weights, expected_weights, atol=1e-3)


def test_mirrored_on_two_devices_equals_single(one_process, single):
    assert_equal_results(one_process["RESULT-mirrored"], single)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


@pytest.mark.parametrize("first", [pytest.param("worker", marks=pytest.mark.slow), "chief"])
def test_two_workers_equal_single(folder, single, first):
    """The cluster has two workers, or a chief and a worker 0."""
    one, two = (f"127.0.0.1:{port}" for port in free_ports(2))
    cluster = {"worker": [one, two]} if first == "worker" else {"chief": [one], "worker": [two]}
    tasks = [{"type": first, "index": 0}, {"type": "worker", "index": 1 if first == "worker" else 0}]
    workers = [start(folder, "multiworker", f"workers-{first}", cluster=cluster, task=task) for task in tasks]
    chief, other = (finish(worker) for worker in workers)
    assert_equal_results(chief["RESULT-multiworker"], single)
    assert "RESULT-multiworker" not in other, "only the chief writes the model"
    assert chief["SUMS-multiworker"] == other["SUMS-multiworker"], "both have the same weights"
    for name in ("val_auc", "val_ap"):
        assert chief["RESULT-multiworker"]["history"][name] == single["history"][name]


@pytest.mark.slow
def test_a_killed_worker_that_is_started_again_goes_on(folder):
    """It dies before it saves an epoch that the chief has saved; both go on from the one before."""
    expected = finish(start(folder, "single", "whole", EPOCHS="3"))["RESULT-single"]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    chief = start(folder, "multiworker", "killed", cluster=cluster, task=tasks[0], EPOCHS="3")
    other = start(folder, "multiworker", "killed", cluster=cluster, task=tasks[1], EPOCHS="3", DIE="1")
    other.wait(timeout=280)
    assert other.returncode == -9
    _, errors = chief.communicate(timeout=280)
    assert chief.returncode == 1 and "UserError: another worker of the cluster was lost" in errors.splitlines()[-1]
    states = sorted((folder / "killed/multiworker/checkpoints").glob("*/state.json"))
    assert [len(json.loads(state.read_text())["history"]) for state in states] == [2, 1]
    chief, other = map(finish, [start(folder, "multiworker", "killed", cluster=cluster, task=task, EPOCHS="3") for task in tasks])
    assert_equal_results(chief["RESULT-multiworker"], expected)
    assert chief["SUMS-multiworker"] == other["SUMS-multiworker"], "both have the same weights"


@pytest.mark.parametrize("cluster, kind, index, expected", [
    (None, None, None, 0), ({"worker": ["a", "b"]}, "worker", 0, 0), ({"worker": ["a", "b"]}, "worker", 1, 1),
    ({"chief": ["a"], "worker": ["b", "c"]}, "chief", 0, 0), ({"chief": ["a"], "worker": ["b", "c"]}, "worker", 0, 1),
    ({"chief": ["a"], "worker": ["b", "c"]}, "worker", 1, 2)])  # fmt: skip
def test_chief_has_index_0_and_workers_follow(monkeypatch, cluster, kind, index, expected):
    config = {"cluster": cluster, "task": {"type": kind, "index": index}} if cluster else {}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert backend.worker_index() == expected


@pytest.mark.parametrize("config, message", [
    ('{"task": {"type": "evaluator", "index": 0}}', "'evaluator'; only chief and"), ('{"task": {"type": "ps"}}', "'ps'; only"),
    ("chief", "TF_CONFIG is not valid"), ('["chief"]', "TF_CONFIG is not valid")])  # fmt: skip
def test_invalid_tf_config_is_refused(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=message):
        backend.worker_index()


@pytest.mark.parametrize("gpus, nvidia, hidden, expected", [
    (["H100", "H100"], True, "", ["2 GPUs (H100)"]), ([], False, None, ["no GPU"]), ([], True, "-1", ["no GPU"]),
    ([], True, None, ["no GPU", "cannot be loaded"])])  # fmt: skip
def test_description_names_devices_and_an_unused_gpu(monkeypatch, gpus, nvidia, hidden, expected):
    monkeypatch.setattr(devices, "gpus", lambda library=None: gpus)
    monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: nvidia)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    log = "W0000 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure"
    lines = devices.describe("mixed_float16", log).splitlines()
    assert len(lines) == len(expected) and all(text in line for text, line in zip(expected, lines, strict=True))
    assert "CPU core" in lines[0] and "; mixed_float16; Keras 3" in lines[0] and "on TensorFlow 2" in lines[0]
    assert len(lines) == 1 or "pip install 'tensorflow[and-cuda]'" in lines[1]


@pytest.mark.parametrize("variable, driver, hardware, cuda, expected", [
    ("-1", True, True, True, ("CUDA_VISIBLE_DEVICES='-1' hides the GPUs", "unset CUDA_VISIBLE_DEVICES")),
    ("7", True, True, True, ("CUDA_VISIBLE_DEVICES='7' hides the GPUs", "unset CUDA_VISIBLE_DEVICES")),
    ("0", False, False, True, ("this machine has no NVIDIA GPU, or the container is not given one", "")),
    (None, False, True, True, ("an NVIDIA GPU is present, but its driver is not loaded", "--gpus all")),
    (None, True, True, False, ("TensorFlow does not use it: this build is for CPUs only", "tensorflow[and-cuda]")),
    (None, True, True, True, ("TensorFlow does not use it: cuDNN cannot be loaded", "tensorflow[and-cuda]"))])  # fmt: skip
def test_the_reason_why_no_gpu_is_used(monkeypatch, variable, driver, hardware, cuda, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: driver)
    monkeypatch.setattr(devices, "has_nvidia_hardware", lambda: hardware)
    monkeypatch.setattr(devices.tf.test, "is_built_with_cuda", lambda: cuda)
    reason, fix = devices.why_no_gpu("Could not load dynamic library 'libcudnn.so.9'")
    assert expected[0] in reason and expected[1] in fix


def test_multiworker_without_a_cluster_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs TF_CONFIG"):
        devices.strategy("multiworker")


def test_missing_tpu_is_refused():
    with pytest.raises(ValueError, match="found no TPU"):
        devices.strategy("tpu")


def test_auto_uses_no_strategy_without_several_gpus():
    assert devices.strategy("auto") is None and devices.strategy("single") is None
