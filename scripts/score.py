"""Run `tfdetect score` from a checkout, whether the package is installed or not; `--help` lists the options."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tfdetect.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("score", sys.argv[1:]))
