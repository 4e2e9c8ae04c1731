"""How long the whole `train` command takes for a second head on stored features, and where its time goes.

    python benchmarks/second_head.py
    python benchmarks/second_head.py --preset hf-clip:FOLDER --path DATA      # with real weights and pictures

A first head fills the store of features, and with --stress N also that of altered test files. Then `train` with a logistic
regression runs beside the start of the suite, which imports Keras, and beside `import tensorflow`. Each side is a process of its
own. By default the backbone is a small random CLIP and the pictures are those of the embedded sample.
"""

import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from side_by_side import Report, options_parser

SCRIPT = str(Path(__file__).resolve().parents[1] / "scripts" / "train.py")
TENSORFLOW, START, HEAD = "import tensorflow", "start of the suite", "train, a second head"
START_CODE = ("from tfdetect.workflow.startup import start; from tfdetect.workflow.console import import_keras; "
              "start(); import_keras()")  # fmt: skip
PARTS = {  # what is timed in a run of its own -> function
    "start": "tfdetect.workflow.console:import_keras",
    "read, split, look for copies": "tfdetect.api.train:prepare",
    "backbone built": "tfdetect.training.fit:build",
    "weights hashed": "tfdetect.training.feature_extractor:digest",
    "features read": "tfdetect.training.feature_extractor:FeatureExtractor.of",
    "head fitted": "tfdetect.models.heads:fit_head",
    "model.keras written": "tfdetect.training.fit:save_result",
    "model.keras loaded": "tfdetect.models:load",
    "SavedModel written": "tfdetect.serving.export:export",
    "SavedModel loaded": "tfdetect.serving.predictor:load_saved_model",
    "features in the report, pixels checked": "tfdetect.workflow.results:report_extras",
    "shortcuts": "tfdetect.workflow.results:find_shortcuts",
    "altered files": "tfdetect.workflow.stress:corrupted_aucs",
    "neighbours of mistakes": "tfdetect.workflow.neighbours:most_wrong",
    "metrics": "tfdetect.evaluation.metrics:summarise",
    "figures": "tfdetect.workflow.results:save_figures",
    "TensorBoard": "tfdetect.training.tensorboard:write",
}  # fmt: skip


def main() -> None:
    """Fill the store, time the sides, and print where the time of one more run goes."""
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--path", type=Path, help="data set; by default the embedded sample of 1,400 pictures")
    parser.add_argument("--stress", default="0", help="altered test files of each run")
    options = parser.parse_args()
    report = Report(__file__, options, ["tensorflow", "keras", "keras-hub", "scikit-learn", "numpy"], {"run": 0})
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as folder:
        common = ["clip", "--detector.preset", options.preset, "--data.cache_dir", f"{folder}/cache", "--out", f"{folder}/runs",
                  "--stress", options.stress,
                  *(["--data.path", str(options.path)] if options.path else
                    ["--data.sample", "100" if options.quick else "700"])]  # fmt: skip
        command = [*common, "--detector.head", "logistic", "--name", "second", "--overwrite"]
        first = [sys.executable, SCRIPT, *common, "--name", "first", "--train.epochs", "1"]
        subprocess.run(first, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        sides = {HEAD: [sys.executable, SCRIPT, *command], START: [sys.executable, "-c", START_CODE],
                 TENSORFLOW: [sys.executable, "-c", TENSORFLOW]}  # fmt: skip

        def check(results: dict[str, str]) -> None:
            assert "test: AUC" in results[HEAD], results[HEAD]
            assert all(" images/s" not in line or "0/0" in line for line in results[HEAD].splitlines()), "features were computed"

        report.compare("second head", sides, 1, "commands", check)
        report.line("a second head, CPU seconds of import tensorflow", "second head", HEAD, TENSORFLOW, 5.0, 3.0, "cpu", "lower")
        report.line("a second head, wall seconds of import tensorflow", "second head", HEAD, TENSORFLOW, 2.4, 2.0, better="lower")
        report.facts["parts"] = measure_parts(command)
    report.write()


def measure_parts(command: list[str]) -> dict[str, dict[str, float]]:
    """Run the command once more, print the CPU and wall seconds of its PARTS, without those of other parts in them, and return
    them."""
    output = subprocess.run([sys.executable, __file__, "--parts", *command], check=True, stdout=subprocess.PIPE, text=True).stdout
    parts: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    print(f"\n{'where the time goes':44}{'wall s':>10}{'CPU s':>10}")
    for name, row in parts.items():
        print(f"  {name:42}{row['wall']:10.2f}{row['cpu']:10.2f}")
    return parts


def run_with_clocks(argv: list[str]) -> None:
    """Run `train` with clocks in its PARTS, and print their seconds as JSON."""
    clocks = Clocks()
    clocks.around("start", import_all)()
    for name, path in PARTS.items():
        module_name, _, qualified = path.partition(":")
        owner: Any = importlib.import_module(module_name)
        *outer, last = qualified.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, last, clocks.around(name, getattr(owner, last)))
    sys.argv = [SCRIPT, *argv]
    try:
        runpy.run_path(SCRIPT, run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    print(json.dumps({name: {clock: round(value, 3) for clock, value in row.items()} for name, row in clocks.table().items()}))


def import_all() -> None:
    """Import what `train` imports before it reads a file."""
    from tfdetect.workflow.console import import_keras
    from tfdetect.workflow.startup import start

    start()
    import_keras()


class Clocks:
    """Wall and CPU seconds of functions, each without those of the others that it calls."""

    def __init__(self) -> None:
        self.begun = time.perf_counter(), time.process_time()
        self.rows: dict[str, dict[str, float]] = {}
        self.inner = [[0.0, 0.0]]  # seconds of the functions inside of each one that runs now

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with a clock."""

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter(), time.process_time()
            self.inner.append([0.0, 0.0])
            try:
                return function(*args, **options)
            finally:
                took = time.perf_counter() - started[0], time.process_time() - started[1]
                inside = self.inner.pop()
                row = self.rows.setdefault(name, {"wall": 0.0, "cpu": 0.0})
                for place, clock in enumerate(row):
                    row[clock] += took[place] - inside[place]
                    self.inner[-1][place] += took[place]

        return call

    def table(self) -> dict[str, dict[str, float]]:
        """Return the seconds of the PARTS, of everything else, and of all."""
        total = {"wall": time.perf_counter() - self.begun[0], "cpu": time.process_time() - self.begun[1]}
        rest = {clock: total[clock] - sum(row[clock] for row in self.rows.values()) for clock in total}
        known = {name: self.rows[name] for name in PARTS if name in self.rows}
        return {**known, "everything else": rest, "total": total}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--parts"]:
        run_with_clocks(sys.argv[2:])
    else:
        main()
