"""case: a report about a few files, for printing and filing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tfdetect import files, installation
from tfdetect.api.origin import read_origins
from tfdetect.api.results import show_page
from tfdetect.errors import UserError
from tfdetect.verdict_settings import VerdictOverrides
from tfdetect.workflow.console import progress

if TYPE_CHECKING:
    from tfdetect.data.media.frames import Media
    from tfdetect.pages.case_content import Case, CaseFile, Finding, HeatMap
    from tfdetect.serving.verdict import Verdict
    from tfdetect.workflow.case import Judge

MAX_FILES = 20  # of a page
FRAMES = 4  # of a video that the heat-map shows


@dataclass(frozen=True)
class CaseReport:
    """Where the page is, the same as JSON, and what they say. A notebook shows the page."""

    page: Path
    data: Path
    case: "Case" = field(repr=False, compare=False)

    @property
    def failed(self) -> int:
        """The number of files that a run could not judge."""
        return sum(each.failed for each in self.case.files)

    def _repr_html_(self) -> str:
        return show_page(self.page)


def check(out: Path, count: int) -> None:
    """Raise UserError unless the page can have this name, and hold this number of files."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--case writes a page, such as case.html, and the same as JSON beside it; got {str(out)!r}.")
    if count > MAX_FILES:
        raise UserError(f"{count:,} files are too many for a case report: give at most {MAX_FILES}, or write a table with --out.")


def write_case(judges: Sequence["Judge"], paths: Sequence[str], out: Path, given: VerdictOverrides,
               show: "Callable[[str, Verdict], None] | None" = None) -> CaseReport:  # fmt: skip
    """Judge each file by each run, and write the page and the JSON file beside it; `show` is called with each verdict.

    If it is interrupted, they hold the files that are finished, and say so. Raises UserError if a file changes meanwhile.
    """
    from tfdetect.pages.case_content import Case
    from tfdetect.workflow import case_model

    date = installation.utc_now()
    models = tuple(case_model.describe(judge, given) for judge in judges)
    found: list[CaseFile] = []
    try:
        for each in judge_files(judges, paths, show):
            found.append(each)
    finally:
        case = Case(tuple(found), models, date, installation.command_line(), installation.versions(), tuple(paths[len(found) :]))
        if found:
            write(out, case)
    return CaseReport(out, out.with_suffix(".json"), case)


def write(out: Path, case: "Case") -> None:
    """Write the page and the JSON file."""
    from tfdetect.pages import case as page
    from tfdetect.workflow import results

    files.write_json(out.with_suffix(".json"), results.json_values(case.to_dict()))
    with files.atomic_write(out) as temporary:
        page.write(temporary, case)


def judge_files(judges: Sequence["Judge"], paths: Sequence[str],
                show: "Callable[[str, Verdict], None] | None") -> "Iterator[CaseFile]":  # fmt: skip
    """Yield each file with its origin, its picture and what each run finds."""
    from tfdetect.data.worker_pool import WorkerFailure, map_ordered
    from tfdetect.pages.case_content import CaseFile
    from tfdetect.serving.verdict import Verdict
    from tfdetect.workflow import case

    ids, limits = [case.identify(path) for path in paths], (judges[0].data.workers, judges[0].data.timeout)
    pictures = [None if isinstance(found, WorkerFailure) else found
                for _, found in map_ordered(paths, case.Picture(judges[0].data.limits), *limits)]  # fmt: skip
    origins = list(read_origins(paths))
    decoded = [list(judge.predictor.map_files(paths, lambda _, media: media, judge.data.timeout, judge.data.workers))
               for judge in judges]  # fmt: skip
    draws = list(map(heat_map, judges))
    with progress("Judging", case.STEPS * len(paths) * len(judges), "steps", may_fail=False) as step:
        for path, (sha, kind), origin, picture, *media in zip(paths, ids, origins, pictures, *decoded, strict=True):
            findings: list[Finding] = []
            for judge, clip, draw in zip(judges, media, draws, strict=True):
                findings.append(case.find(judge, path, sha, clip, draw, step))
                if show:
                    show(judge.artifact.folder.name, Verdict(**findings[-1].verdict))
            if case.identify(path)[0] != sha or origin.sha256 not in ("", sha):
                raise UserError(f"{path} changed while it was judged: judge a copy that nothing writes to.")
            yield CaseFile(path, sha, origin, kind, tuple(findings), picture)


def heat_map(judge: "Judge") -> "Callable[[Verdict, Media], HeatMap]":
    """Return the function that draws which regions of a file, or of its most fake face, drive a run's score: by the method that
    measures best for the detector or, where that map fails its check, by occlusion."""
    from tfdetect.pages import explanation
    from tfdetect.pages.case_content import HeatMap
    from tfdetect.plots import style
    from tfdetect.workflow import explaining

    maps = judge.maps

    def draw(verdict: "Verdict", media: "Media") -> HeatMap:
        clip, which = explaining.most_fake_face(judge.predictor, verdict, media)
        found = explaining.explain(maps, clip, FRAMES, areas=False)
        picture = style.to_png(explanation.figure(found.frames, found.heat, found.maps.method))
        return HeatMap(found.maps.method, found.note, found.result_for(which), found.check, found.passed, picture)

    return draw
