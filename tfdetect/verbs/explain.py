"""explain: show which regions of a file drive its score."""

from collections.abc import Sequence

from tfdetect import config
from tfdetect.api.explain import Explain, explain_files
from tfdetect.workflow.console import console, plural
from tfdetect.workflow.verdicts import format_verdict


def main(argv: Sequence[str]) -> int:
    """Parse the flags, explain the files, and print each verdict as soon as its file is explained."""
    args = config.parse_flags(Explain, argv, "explain")
    explanation = explain_files(args, show=lambda verdict: print(format_verdict(verdict), flush=True))
    explained = plural(len(explanation.rows) - explanation.failed, "file")
    console.print(f"{explained} explained with method {explanation.method}, {explanation.failed} failed: {explanation.page}")
    return 1 if explanation.failed else 0
