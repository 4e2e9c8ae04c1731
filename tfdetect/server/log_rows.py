"""What a row of the log holds (docs/log.md). The file itself is never kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tfdetect.answers import LogRow
from tfdetect.files import printable

if TYPE_CHECKING:
    from tfdetect.server.models import ServedModel

FAILED = "failed"  # the verdict on a file that could not be judged
COLUMNS = tuple(each.name for each in fields(LogRow))


def text_of(time: datetime) -> str:
    """Return a time in UTC as the log has it: ISO 8601 with microseconds, so that texts are in the order of time."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def row(digest: str, size: int, model: "ServedModel", verdict: str | None, probability: float | None, seconds: float,
        request: str, who: str) -> LogRow:  # fmt: skip
    """Return the row of a verdict that a model has just given; None as `verdict` is a file that could not be judged."""
    return LogRow(text_of(datetime.now(UTC)), digest, size, printable(model.name), model.version, model.model_hash,
                  verdict or FAILED, probability, seconds, request, printable(who))  # fmt: skip


def rows_of(files: Iterable[Mapping[str, Any]], models: Sequence["ServedModel"], request: str, who: str) -> list[LogRow]:
    """Return the rows for images and videos as /v1/score answers them, asked of these models: one for each model."""
    found = []
    for file in files:
        findings = {each["model"]: each for each in file["findings"]}
        for model in models:
            finding = findings.get(model.name, {})
            verdict = finding.get("verdict", {})
            found.append(row(file["sha256"], file["bytes"], model, verdict.get("verdict"), verdict.get("probability"),
                             finding.get("seconds", 0.0), request, who))  # fmt: skip
    return found
