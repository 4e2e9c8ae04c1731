"""How long `predict` takes to start: `--help`, and a verdict on one image, beside `import tensorflow`.

    python benchmarks/start.py

Each side is a process of its own, with a warm disk. The CPU seconds include the process that decodes the image.
"""

import os
import sys
import tempfile
from pathlib import Path

from predict import SCRIPTS, make_run
from side_by_side import Report, options_parser

TENSORFLOW = "import tensorflow"


def check(results: dict[str, str]) -> None:
    """Raise unless the image was scored and the help printed."""
    assert "1 file: 1 scored, 0 failed" in results["predict"] and "usage:" in results["--help"], results


def main() -> None:
    """Measure all three."""
    parser = options_parser(__doc__, __file__)
    parser.add_argument("--detector", default="residual")
    options = parser.parse_args()
    report = Report(__file__, options, packages=["tensorflow", "keras", "tyro", "numpy"], seeds={"sample": 0})
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as name:
        run = make_run(options.detector, Path(name))
        image = next(path for path in sorted(Path(name, "cache").rglob("*.jpg")))
        script = str(SCRIPTS / "predict.py")
        sides = {TENSORFLOW: [sys.executable, "-c", TENSORFLOW], "--help": [sys.executable, script, "--help"],
                 "predict": [sys.executable, script, str(run), str(image)]}  # fmt: skip
        report.compare("start", sides, 1, "starts", check)
    for side, name, at_least, aim in (("--help", "start of --help", 0.3, 0.1), ("predict", "predict on one image", 1.4, 1.1)):
        report.line(f"{name}, CPU seconds of import tensorflow", "start", side, TENSORFLOW, at_least, aim, "cpu", "lower")
    report.write()


if __name__ == "__main__":
    main()
