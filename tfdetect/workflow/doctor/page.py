"""The page: problems first, then what was found, as plain text of at most 100 columns to be pasted into a bug report."""

import textwrap
from collections.abc import Iterator, Sequence

from tfdetect.files import plural, printable
from tfdetect.workflow.doctor.finding import Finding

WIDTH = 100
NOTABLE_SECONDS = 0.5
SHORT = 16  # characters; findings without details, or with a version only, share a line
TITLES = {"problem": "PROBLEM", "warning": "WARNING"}


def format_page(findings: Sequence[Finding], seconds: float) -> str:
    """Return the page; `seconds` is how long all checks took."""
    counts = {name: sum(finding.result == name for finding in findings) for name in TITLES}
    said = ", ".join(plural(count, name) for name, count in counts.items() if count) or "no problems"
    lines = [f"tfdetect doctor: {said}; {plural(len(findings), 'check')} in {seconds:.0f} s", ""]
    for result, title in TITLES.items():
        for text, advice in merge([finding for finding in findings if finding.result == result]):
            lines += wrap(f"{title}  ", text) + (wrap(f"{'fix':7}  ", advice) if advice else [])
    lines += [""] if any(counts.values()) else []
    for part in dict.fromkeys(finding.part for finding in findings):
        lines += format_part(part, [finding for finding in findings if finding.part == part])
    return "\n".join(lines)


def merge(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """Yield (text, advice) of the findings; those of one part with the same text share a line."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for finding in findings:
        groups.setdefault((finding.part, finding.detail, finding.advice), []).append(finding.check)
    for (part, detail, advice), checks in groups.items():
        names = ", ".join(checks)
        yield f"{part}{'' if names == part else f', {names}'}: {detail or 'is missing'}", advice


def format_part(part: str, findings: Sequence[Finding]) -> list[str]:
    """Return the lines of a part: short findings together, others on lines of their own, with their times."""
    short = [finding for finding in findings if finding.result in ("ok", "absent") and len(finding.detail) <= SHORT]
    lines = []
    for result, before in (("ok", ""), ("absent", "not installed: ")):
        names = [with_time(f"{finding.check} {finding.detail}".strip(), finding) for finding in short if finding.result == result]
        lines += [before + ", ".join(names)] if names else []
    for text, checks in group_long([finding for finding in findings if finding not in short]).items():
        lines.append(f"{', '.join(checks)}: {text}" if checks != [part] else text)
    return [line for number, text in enumerate(lines) for line in wrap(f"{part if number == 0 else '':11}", text)]


def group_long(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Return the checks of each text."""
    groups: dict[str, list[str]] = {}
    for finding in findings:
        detail = f"not tried: {finding.detail}" if finding.result == "not tried" else finding.detail
        text = f"see {finding.result} above" if finding.result in TITLES else with_time(detail, finding)
        groups.setdefault(text, []).append(finding.check)
    return groups


def with_time(text: str, finding: Finding) -> str:
    """Return the text, with how long the check took unless that is short."""
    return f"{text} ({finding.seconds:.1f} s)" if finding.seconds >= NOTABLE_SECONDS else text


def wrap(before: str, text: str) -> list[str]:
    """Return the text as lines that begin with `before`, further ones indented as far."""
    return textwrap.wrap(printable(text), WIDTH, initial_indent=before, subsequent_indent=" " * len(before),
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip
