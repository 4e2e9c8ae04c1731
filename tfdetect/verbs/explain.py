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
    other = sum(row["method"] != explanation.method for row in explanation.rows)
    instead = f" ({other} with occlusion, since that map failed its check)" if other else ""
    console.print(f"{explained} explained with method {explanation.method}{instead}, {explanation.failed} failed: "
                  f"{explanation.page}")  # fmt: skip
    return 1 if explanation.failed else 0
