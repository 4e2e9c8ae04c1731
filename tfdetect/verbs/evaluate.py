"""evaluate: evaluate a run again, or on another data set; or several runs and the mean of their probabilities."""

from collections.abc import Sequence

from tfdetect import config
from tfdetect.api.evaluate import evaluate_runs
from tfdetect.workflow.console import console
from tfdetect.workflow.test_files import Evaluate


def main(argv: Sequence[str]) -> int:
    """Parse the flags and evaluate one run, or an ensemble."""
    target = evaluate_runs(config.parse_flags(Evaluate, argv, "evaluate"))
    console.print(f"\nReport  {target.report}")
    return 0
