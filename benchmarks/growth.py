"""Measure how the cost of each command grows with the number of files: 1, 4, 16 and 64 times as many.

    python benchmarks/growth.py [--base FILES]

The files are images of 16 x 16 pixels, so that what grows is the work per file and not the decoding. Commands run in processes of
their own, whose CPU seconds are added up; an epoch is half the difference of trainings of three epochs and of one, which leaves
out start, export and report. The cost of one more file is compared between the last two steps: if time is linear, it is the same.
Peak memory is that of the largest process. The curves go to docs/growth.png.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from side_by_side import Report, options_parser

ROOT = Path(__file__).resolve().parents[1]
STEPS = (1, 4, 16, 64)
FACTOR = 1.1  # the cost of one more file may differ by a tenth
COMMANDS = ("prepare", "an epoch", "train", "evaluate", "audit", "predict")


class Cost(NamedTuple):
    """What a command took."""

    cpu: float  # seconds, of all its processes
    wall: float
    memory: float  # MB, peak of the largest process


def main() -> None:
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--base", type=int, default=1000, help="files of the first step (default 1000)")
    options = parser.parse_args()
    report = Report(__file__, options, ("tensorflow", "keras", "numpy", "pandas", "tfdetect"), {"images": 0})
    report.about["rounds"] = 1
    costs: dict[str, list[Cost]] = {name: [] for name in COMMANDS}
    counts = [(250 if options.quick else options.base) * step for step in (STEPS[:3] if options.quick else STEPS)]
    print(f"{'':12}" + "".join(f"{count:>26,d} files" for count in counts))
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            for name, cost in measure(Path(folder, str(count)), count).items():
                costs[name].append(cost)
    for name, row in costs.items():
        print(f"{name:12}" + "".join(f"{cost.cpu:10.1f} CPU s{cost.memory:9.0f} MB" for cost in row))
        columns = zip(Cost._fields, zip(*row, strict=True), strict=True)
        report.cases[name] = {"files": counts} | {field: [round(value, 3) for value in values] for field, values in columns}
        before, after = (1000 * (row[k + 1].cpu - row[k].cpu) / (counts[k + 1] - counts[k]) for k in (-3, -2))
        report.add_line(f"growth of {name}: CPU time of one more file, last step against the one before", after / before, FACTOR,
                        1.0, "lower", cpu_ms_per_file=round(after, 4))  # fmt: skip
        report.add_line(f"memory of {name}: last step against the first", row[-1].memory / row[0].memory, None, None, "lower")
    if not options.quick:
        plot(counts, costs)
    report.write()


def measure(folder: Path, count: int) -> dict[str, Cost]:
    """Return the cost of each command for this many files."""
    write_images(folder / "set", count)
    prepared, runs, verdicts = folder / "prepared", folder / "runs", folder / "verdicts.csv"
    train = ["train", "cnn", "--data.path", prepared, "--out", runs, "--detector.width", "4", "--stress", "0", "--name"]
    out = {"prepare": run("prepare", folder / "set", "--out", prepared, "--data.size", "16")}
    out["train"] = run(*train, "one", "--train.epochs", "1", "--train.patience", "9")
    three = run(*train, "three", "--train.epochs", "3", "--train.patience", "9")
    out["an epoch"] = Cost(*((a - b) / 2 for a, b in zip(three[:2], out["train"][:2], strict=True)), three.memory)
    out["evaluate"] = run("evaluate", runs / "one", "--out", folder / "evaluation", "--stress", "0")
    out["audit"] = run("audit", folder / "set", "--out", folder / "audit")
    out["predict"] = run("predict", runs / "one", folder / "set", "--out", verdicts)
    return out


def write_images(folder: Path, count: int) -> None:
    """Write PNG images of 16 x 16 pixels of noise; the fakes are brighter."""
    import cv2

    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("real", "fake")[number % 2] / f"{number:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 200, (16, 16, 3)) + 20 * (number % 2)
        path.write_bytes(cv2.imencode(".png", image.astype(np.uint8))[1].tobytes())


def run(verb: str, *arguments: Any) -> Cost:
    """Run a command to its end. Raises SystemExit if it fails."""
    start = time.perf_counter()
    command = [sys.executable, ROOT / "scripts" / f"{verb}.py", *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": str(ROOT)})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{output.read()}\n{command} ended with code {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024)


def plot(counts: list[int], costs: dict[str, list[Cost]]) -> None:
    """Draw CPU seconds and peak memory over the number of files."""
    from matplotlib.figure import Figure

    figure = Figure((10, 4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for name, row in costs.items():
        time_axes.plot(counts, [cost.cpu for cost in row], marker="o", label=name)
        memory_axes.plot(counts, [cost.memory for cost in row], marker="o", label=name)
    time_axes.set(xscale="log", yscale="log", xlabel="files", ylabel="CPU seconds", title="Time, start included")
    memory_axes.set(xscale="log", ylim=(0, None), xlabel="files", ylabel="MB", title="Peak memory of the largest process")
    time_axes.legend()
    figure.savefig(ROOT / "docs" / "growth.png", dpi=100)


if __name__ == "__main__":
    main()
