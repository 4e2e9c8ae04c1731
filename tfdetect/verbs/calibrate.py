"""calibrate: fit probabilities, threshold and inconclusive band of a run to files of one's own."""

from collections.abc import Sequence

from tfdetect import config
from tfdetect.api.calibrate import Calibrate, calibrate_run
from tfdetect.workflow.console import console


def main(argv: Sequence[str]) -> int:
    """Parse the flags, make the new version, and print where its report is."""
    artifact = calibrate_run(config.parse_flags(Calibrate, argv, "calibrate"))
    console.print(f"Report  {artifact.report}")
    return 0
