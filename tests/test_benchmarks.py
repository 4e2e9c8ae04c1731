"""Tests of what the benchmarks share: sides are timed in turn, child processes count, results are checked and written."""

import json
import os
import subprocess
import sys
import time
from importlib import util
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SPIN = "import time; start = time.process_time()\nwhile time.process_time() - start < 0.1: pass\nprint(7)"


def load(name: str):
    """Import a script of benchmarks/, which is no package."""
    spec = util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


side_by_side = load("side_by_side")


def report(tmp_path, *words):
    options = side_by_side.options_parser("", "x.py").parse_args([*words, "--out", str(tmp_path / "x.json")])
    return side_by_side.Report("x.py", options, ["numpy", "no-such-package"], {"data": 3})


def test_sides_alternate_and_are_written(tmp_path, capsys):
    order, out = [], report(tmp_path)
    sides = {"fast": lambda: order.append("fast"), "slow": lambda: (order.append("slow"), time.sleep(0.02))[0]}
    out.compare("case", sides, 10, "clips")
    assert order[:2] == ["fast", "slow"] and [order.count(name) for name in sides] == [6, 6]
    assert order[2:6] == ["slow", "fast", "fast", "slow"]  # neither is always first
    assert out.line("fast against slow", "case", "fast", "slow", 2, 10**9) > 2
    assert out.line("as a share", "case", "fast", "slow", 0.5, 0.4, better="lower") < 0.5
    out.write()
    written = json.loads((tmp_path / "x.json").read_text())
    assert [line["name"] for line in written["lines"]] == ["fast against slow", "as a share"]
    assert len(written["cases"]["case"]["sides"]["slow"]["walls"]) == 5 and written["seeds"] == {"data": 3}
    assert "numpy" in written["versions"] and "no-such-package" not in written["versions"] and written["machine"]["cores"]
    printed = capsys.readouterr().out
    assert "enough" in printed and "meets the aim" in printed


def test_the_cpu_seconds_of_child_processes_count():
    command = [sys.executable, "-c", SPIN]
    for side in (command, lambda: subprocess.run(command, check=True, capture_output=True)):
        assert side_by_side.timed(side).cpu > 0.09
    assert side_by_side.timed(command).result == "7\n"


def test_results_that_differ_and_commands_that_fail_stop_the_run(tmp_path):
    def equal(results):
        if len(set(results.values())) > 1:
            raise SystemExit(f"they differ: {results}")

    with pytest.raises(SystemExit, match="they differ"):
        report(tmp_path).compare("case", {"a": lambda: 1, "b": lambda: 2}, 1, "clips", equal)
    with pytest.raises(subprocess.CalledProcessError):
        report(tmp_path).compare("case", {"a": [sys.executable, "-c", "raise SystemExit(1)"]}, 1, "clips")


def test_too_few_rounds_are_refused_without_quick(tmp_path):
    with pytest.raises(SystemExit, match="at least|fewer"):
        report(tmp_path, "--rounds", "2")
    assert report(tmp_path, "--quick").rounds < 5


def test_a_worker_measures_itself(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(FOLDER)!r})\nimport side_by_side\n"
                      "def spin(n):\n    print('not an answer')\n    return sum(range(n))\n"
                      "side_by_side.serve({'spin': spin})\n")  # fmt: skip
    worker = side_by_side.Worker(str(script))
    start = time.perf_counter()
    times = side_by_side.timed(lambda: worker.call("spin", 10**6))
    assert times.result == sum(range(10**6)) and 0 < times.wall < time.perf_counter() - start and times.cpu > 0
    with pytest.raises(SystemExit, match="ended"):
        worker.call("none")
    worker.close()


# --- guard -----------------------------------------------------------------------------------------------------------

guard = load("guard")


def write_script(folder, ratio):
    """Write a benchmark that measures this ratio, and its committed JSON file, in which both lines are 1."""
    lines = [{"name": "speed", "ratio": 1.0, "better": "higher"}, {"name": "share", "ratio": 1.0, "better": "lower"}]
    (folder / "x.json").write_text(json.dumps({"lines": lines}))
    measured = json.dumps({"lines": [lines[0] | {"ratio": ratio}, lines[1] | {"ratio": 1 / ratio}]})
    (folder / "x.py").write_text(f"import sys\nassert '--quick' in sys.argv\nopen(sys.argv[-1], 'w').write({measured!r})\n")


@pytest.mark.parametrize(("ratio", "code"), [(0.79, 1), (0.81, 0), (3.0, 0)])
def test_the_guard_fails_below_four_fifths_and_names_the_line(tmp_path, monkeypatch, capsys, ratio, code):
    write_script(tmp_path, ratio)
    (tmp_path / "rows.json").write_text("[]")  # of a benchmark without lines
    (tmp_path / "rows.py").write_text("raise SystemExit('not guarded')")
    monkeypatch.setattr(guard, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["guard.py"])
    assert guard.main() == code
    printed = capsys.readouterr().out
    assert ("x: 'speed' is 0.79, was 1" in printed) == ("x: 'share' is" in printed) == bool(code)


def test_a_share_within_its_floor_passes():
    committed = {"ratio": 0.0001, "better": "lower", "floor": 0.005}
    assert not guard.is_worse({"ratio": 0.004}, committed) and guard.is_worse({"ratio": 0.006}, committed)


# --- gpu -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gpu_measures_a_tiny_network_on_the_cpu(tmp_path):
    """The PyTorch side is left out with its reason where PyTorch is not installed."""
    out = tmp_path / "gpu.json"
    words = ["--tiny", "--quick", "--rounds", "1", "--only", "cnn_lstm", "--precisions", "float32", "--steps", "plain",
             "--out", out]  # fmt: skip
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, FOLDER / "gpu.py", *words], check=True, env=environment)
    written = json.loads(out.read_text())
    row = written["cases"]["cnn_lstm, float32"]["sides"]["tfdetect"]
    # Conv 3x3 to 30 x 30 x 16 and 13 x 13 x 32 and 5 x 5 to 2 x 2 x 64, dense 64 to 256; 20 frames, then the LSTM, 64 and 1
    frame = 2 * (30 * 30 * 27 * 16 + 13 * 13 * 9 * 16 * 32 + 2 * 2 * 25 * 32 * 64 + 64 * 256)
    flops = 3 * 2 * (20 * (frame + 2 * (256 + 64) * 256) + 2 * (64 * 64 + 64))
    product = written["facts"]["matrix product, float32, TFLOP/s"] * 1e12
    assert row["share_of_product"] == pytest.approx(flops * row["steps_per_second"] / product, rel=0.02, abs=1e-3)
    assert row["parameters"] == 159_393 and written["facts"]["device"] == "CPU"
