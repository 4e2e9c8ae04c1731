"""evaluate: evaluate a run again, or on other data sets; or several runs and the mean of their probabilities."""

from collections.abc import Sequence

from tfdetect import config
from tfdetect.api.evaluate import evaluate_runs
from tfdetect.workflow.console import console
from tfdetect.workflow.matrix import find_paths
from tfdetect.workflow.test_files import Evaluate


def main(argv: Sequence[str]) -> int:
    """Parse the flags and evaluate one run, an ensemble, or with several --data.path each run on each data set."""
    target = evaluate_runs(config.parse_flags(Evaluate, argv, "evaluate"), find_paths(argv))
    console.print(f"\nReport  {target.report}")
    return 0
