"""The checks themselves: packages, optional parts, formats and codecs, disks, worker processes, devices, a tiny training."""

import errno
import importlib.metadata
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement

from tfdetect.data import worker_processes
from tfdetect.data.media import read
from tfdetect.data.media.frames import Media
from tfdetect.data.media.sniff import MediaError
from tfdetect.training import devices
from tfdetect.workflow import console
from tfdetect.workflow.doctor import installation, machine, media, training


def require(monkeypatch, text):
    requirement = Requirement(text)
    monkeypatch.setattr(installation, "requirements", lambda: {requirement.name: requirement})
    (found,) = installation.check_import(requirement.name)
    return found


def test_packages_are_those_of_the_checkout_or_of_the_metadata(monkeypatch, tmp_path):
    assert {"tensorflow", "av", "pillow"} <= set(installation.requirements())
    installation.requirements.cache_clear()
    monkeypatch.setattr(installation, "PACKAGE", tmp_path / "tfdetect")
    lines = ["numpy<3,>=2", 'apache-beam>=2.70; extra == "beam"', 'decord; platform_machine == "none"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert list(installation.requirements()) == ["numpy"]
    installation.requirements.cache_clear()


def test_a_package_is_missing_too_old_or_fine(monkeypatch):
    found = require(monkeypatch, "no-such-package>=1")
    assert (found.result, found.detail, found.advice) == ("problem", "is not installed", "pip install 'no-such-package>=1'")
    found = require(monkeypatch, "numpy<1")
    assert found.result == "problem" and f"{np.__version__} is installed, tfdetect needs <1" == found.detail
    assert (require(monkeypatch, "numpy>=1").result, require(monkeypatch, "numpy>=1").detail) == ("ok", np.__version__)


@pytest.mark.parametrize("error, advice", [
    ("libGL.so.1: cannot open shared object file: No such file", "Install the system library libGL.so.1 with"),
    ("undefined symbol: x", "pip install --force-reinstall 'openpyxl"),
    ("No module named 'et_xmlfile'", "pip install et_xmlfile")])  # fmt: skip
def test_a_package_that_cannot_be_imported_says_how_to_repair_it(monkeypatch, tmp_path, error, advice):
    (tmp_path / "openpyxl.py").write_text(f'raise ImportError("{error}")')
    monkeypatch.delitem(sys.modules, "openpyxl", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = require(monkeypatch, "openpyxl>=3")
    assert found.result == "problem" and error in found.detail and found.advice.startswith(advice) and found.cause == "openpyxl"


def test_optional_parts_and_the_cuda_packages(monkeypatch):
    versions = {"torch": "2.13.0", "nvidia-a": "1"}
    monkeypatch.setattr(installation, "version_of", lambda name: versions.get(name, ""))
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [f'nvidia-{part}; extra == "and-cuda"' for part in "ab"])
    found = {item.check: item for item in installation.check_optional(())}
    assert (found["torch"].detail, found["jax"].result) == ("2.13.0", "absent") and "tfdetect[beam]" in found["beam"].advice
    cuda = found["tensorflow[and-cuda]"]
    assert cuda.result == "warning" and "1 of 2 packages" in cuda.detail
    assert "torch" not in [item.check for item in installation.check_optional(["torch"])], "it is imported, in another process"


def test_private_values_of_variables_are_not_shown(monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", "/home/alice/secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    (environment,) = [item.detail for item in installation.check_versions() if item.check == "environment"]
    assert "CUDA_VISIBLE_DEVICES=3" in environment and "LD_LIBRARY_PATH is set" in environment and "alice" not in environment


@pytest.mark.parametrize("name", media.IMAGES)
def test_image_formats_are_read(name):
    (found,) = media.check_image(name)
    assert (found.result, found.detail) == ("ok", "")


@pytest.mark.parametrize("name", media.VIDEOS)
def test_codecs_are_read_or_no_encoder_is_here(name):
    (found,) = media.check_video(name)
    assert found.result == "ok" or found.detail == media.NO_ENCODER
    assert found.result == "ok" or name not in ("H.264 in MP4", "MPEG-4 in AVI", "MJPEG in AVI")


def test_wrong_pixels_unreadable_files_and_failing_encoders(monkeypatch):
    swapped = media.picture()[None, ..., [1, 0, 2]]
    monkeypatch.setattr(read, "read_media", lambda path: Media(swapped, (0,), 1, 64, 48, ""))
    (found,) = media.check_image("PNG")
    assert found.result == "problem" and "wrong pixels" in found.detail

    def refuse(path):
        raise MediaError("damaged")

    monkeypatch.setattr(read, "read_media", refuse)
    (found,) = media.check_image("PNG")
    assert (found.result, found.detail) == ("problem", "cannot be read: damaged") and found.advice
    monkeypatch.setitem(media.IMAGES, "PNG", ("NO SUCH FORMAT", {}))
    assert [item.result for item in media.check_image("PNG")] == ["not tried"]
    monkeypatch.setattr(media, "encode_video", lambda name: 1 / 0)
    (found,) = media.check_video("FLV")
    assert found.result == "not tried" and "division by zero" in found.detail


def test_disks_are_measured_once_and_folders_are_not_created(tmp_path):
    found = list(machine.check_disks({"cache folder": tmp_path / "a" / "b", "output folder": tmp_path}))
    assert [item.result for item in found if item.check != "temporary folder"] == ["ok", "ok"]
    assert "writes" in found[0].detail and found[1].detail.endswith("same disk as the cache folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number, advice", [(errno.EROFS, "Make it writable, or give another one with --data.cache_dir."),
                                            (errno.ENOSPC, "Free some space, or"), (errno.EFBIG, "Raise the limit of ulimit -f")])
def test_a_disk_that_cannot_be_written(monkeypatch, tmp_path, number, advice):
    def refuse(**_):
        raise OSError(number, "No way")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = next(machine.check_disks({"cache folder": tmp_path}))
    assert (found.result, found.detail) == ("problem", "nothing can be written: no way") and found.advice.startswith(advice)


def test_little_memory_and_few_files_are_warnings(monkeypatch):
    monkeypatch.setattr("tfdetect.machine.free_memory", lambda: 10**9)
    monkeypatch.setattr(machine.resource, "getrlimit", lambda number: (64, 64) if number == machine.resource.RLIMIT_NOFILE
                        else (machine.resource.RLIM_INFINITY,) * 2)  # fmt: skip
    found = {item.check: item for item in machine.check_resources()}
    assert found["memory"].result == "warning" and "1.0 GB free; training needs 2.0 GB" in found["memory"].detail
    assert found["limits"].result == "warning" and found["limits"].advice == "Raise it: ulimit -n 1024"


def test_worker_processes_start():
    (found,) = machine.check_processes("workers")
    assert found.result == "ok"


def test_worker_processes_that_cannot_start_are_a_problem(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EAGAIN, "no processes left")

    monkeypatch.setattr(worker_processes.ProcessPool, "schedule", refuse)
    (found,) = machine.check_processes("workers")
    assert found.result == "problem" and "cannot be started" in found.detail and "no processes left" in found.detail
    assert "ulimit -u" in found.advice


def test_the_advice_fits_the_reason(monkeypatch):
    assert "Free space in /dev/shm" in machine.process_advice("[Errno 28] No space left on device")
    monkeypatch.setattr(machine.os, "access", lambda *_, **__: False)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert "Mount a writable /dev/shm" in machine.process_advice("[Errno 30] Read-only file system")


@pytest.mark.parametrize("gpus, driver, result", [(["H100"], True, "ok"), ([], True, "warning"), ([], False, "absent")])
def test_the_gpu_is_used_or_the_reason_is_found(monkeypatch, gpus, driver, result):
    monkeypatch.setattr(console, "initialise_devices", lambda: "Cannot dlopen some GPU libraries")
    monkeypatch.setattr(devices, "gpus", lambda *_: gpus)
    monkeypatch.setattr(devices, "has_nvidia_gpu", lambda: driver)
    monkeypatch.setattr(devices, "has_nvidia_hardware", lambda: driver)
    monkeypatch.setattr(devices.tf.test, "is_built_with_cuda", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    line, gpu = training.check_devices("")
    assert "CPU core" in line.detail and gpu.result == result
    assert result != "warning" or (gpu.detail.endswith("cannot be loaded") and "and-cuda" in gpu.advice)


def test_a_tiny_training_takes_every_step():
    found = list(training.check_training(""))
    assert [item.check for item in found] == ["decode", "train", "export", "score"]
    assert {item.result for item in found} == {"ok"} and "peak memory" in found[-1].detail
