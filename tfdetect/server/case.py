"""POST /v1/case: the case report of a file, as a page or as JSON."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from tfdetect import installation
from tfdetect.api import case
from tfdetect.errors import UserError
from tfdetect.pages import case as page
from tfdetect.pages.case_content import Case, CaseFile, Finding, Model
from tfdetect.server.answers import AS_JOB, REFUSALS, form
from tfdetect.server.explain import in_turn
from tfdetect.server.jobs import Job
from tfdetect.server.judges import KnownModel
from tfdetect.server.score import record
from tfdetect.server.uploads import PATH, Form, Upload, without_paths
from tfdetect.workflow import results
from tfdetect.workflow.console import reporting_to

router = APIRouter(tags=["verdicts"])
CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; sandbox"
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}}}
}  # fmt: skip


@router.post("/v1/case", responses={**AS_JOB, **REFUSALS, **CONTENT}, openapi_extra=form(1))
async def case_of_upload(request: Request, wait: bool = True, format: Literal["html", "json"] = "html") -> Response:
    """Write the case report of one file: a page for printing and filing, or the same as JSON. As the result of a job, the page is
    {"html": page}."""
    found, status = await in_turn(request, wait, partial(case_of_form, as_page=format == "html"), None)
    if status == 200 and format == "html":
        return HTMLResponse(found["html"], headers={"Content-Security-Policy": CSP})
    return JSONResponse(found, status)


async def case_of_form(state: Any, received: Form, names: Sequence[str], job: Job, as_page: bool) -> dict[str, Any]:
    """Return the case report of a file as {"html": page}, or as plain data. Raises HTTPException 400 for a file that changed."""
    served = [state.models.get(name) for name in names]
    known = [await asyncio.to_thread(state.judges.of, each) for each in served]
    [upload], start = received.files, time.monotonic()
    try:
        report = await asyncio.to_thread(write_case, known, upload, job)
    except UserError as error:
        raise HTTPException(400, without_paths(str(error), upload)) from error
    seconds, [file] = time.monotonic() - start, report.files
    findings = [{"model": each.name, "verdict": found.verdict, "seconds": seconds}
                for each, found in zip(served, file.findings, strict=True)]  # fmt: skip
    record(state, [{"sha256": upload.sha256, "bytes": upload.bytes, "findings": findings}], served, "case", job.who)
    return await asyncio.to_thread(as_answer, report, upload, as_page)


def write_case(known: Sequence[KnownModel], upload: Upload, job: Job) -> Case:
    """Judge a file, and return its report, without paths of the server."""
    with reporting_to(job.report):
        [found] = case.judge_files([each.judge for each in known], [str(upload.path)], None)
    models = tuple(model_without_paths(each.model) for each in known)
    return Case((file_without_paths(found, upload),), models, installation.utc_now(), "", installation.versions())


def as_answer(report: Case, upload: Upload, as_page: bool) -> dict[str, Any]:
    """Return a report as the answer has it; see `case_of_form`."""
    if not as_page:
        plain: dict[str, Any] = results.json_values(report.to_dict())
        return plain
    path = upload.path.with_suffix(".html")
    page.write(path, report)
    return {"html": path.read_text(encoding="utf-8")}


def model_without_paths(model: Model) -> Model:
    """Return what is known about a model, without folders of the server."""
    return replace(model, folder=model.name, detector=PATH.sub("a file", model.detector))


def file_without_paths(file: CaseFile, upload: Upload) -> CaseFile:
    """Return what was found about a file under the client's name for it. Statements in its metadata stay as they are."""
    origin = replace(file.origin, path=upload.name, notes=tuple(without_paths(note, upload) for note in file.origin.notes),
                     error=file.origin.error and without_paths(file.origin.error, upload))  # fmt: skip
    findings = tuple(finding_without_paths(each, upload) for each in file.findings)
    return replace(file, path=upload.name, origin=origin, findings=findings)


def finding_without_paths(finding: Finding, upload: Upload) -> Finding:
    """Return what a model found about a file, under the client's name for it."""
    clean = lambda text: text and without_paths(text, upload)  # noqa: E731
    verdict = dict(finding.verdict) | {"path": upload.name} | {name: clean(finding.verdict[name]) for name in ("note", "error")}
    stability = tuple(replace(each, error=clean(each.error)) for each in finding.stability)
    missing = {name: clean(reason) for name, reason in finding.missing.items()}
    return replace(finding, verdict=verdict, stability=stability, missing=missing)
