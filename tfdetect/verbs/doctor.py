"""doctor: check the installation and this machine, and print one page for a bug report."""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tfdetect import config
from tfdetect.api.doctor import Doctor, check_all


@dataclass(frozen=True)
class PrintPage(Doctor):
    """Check the installation and this machine: versions, GPU, formats and codecs, disks, memory, a tiny training.

    Prints one page for a bug report. Exit code 1 if something does not work that tfdetect promises, or that --require names.
    """

    json: bool = False
    """Print JSON instead: result (ok or problem), seconds, and a list of checks."""


def main(argv: Sequence[str]) -> int:
    """Parse the flags, carry out the checks and print the page. Returns 1 if there is a problem."""
    try:
        args = config.parse_flags(PrintPage, argv, "doctor")
    except ImportError:  # tyro is what is broken, as the page will say
        args = PrintPage()
    start = time.monotonic()
    findings = check_all(args)
    seconds, failed = time.monotonic() - start, any(finding.result == "problem" for finding in findings)
    if args.json:
        checks = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"result": "problem" if failed else "ok", "seconds": round(seconds, 1), "checks": checks}, indent=1))
    else:
        from tfdetect.workflow.doctor.page import format_page

        print(format_page(findings, seconds))
    return 1 if failed else 0
