"""What a server says about files and detectors, as the code writes it: the page must know it in every language."""

import ast
import io
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

import tfdetect
from tfdetect.data import worker_pool
from tfdetect.data.media import read, sniff
from tfdetect.evaluation.calibration.model import Calibration
from tfdetect.evaluation.single_file import Place
from tfdetect.evaluation.timeline import Timeline
from tfdetect.limits import Limits
from tfdetect.pages import explanation
from tfdetect.pages.case_content import Finding, file_caveats, meaning
from tfdetect.pages.content import Report
from tfdetect.server.jobs import DECODING, FOLLOWING, SCORING
from tfdetect.workflow import case_model

PACKAGE = Path(tfdetect.__file__).parent
READERS = [*(PACKAGE / "data" / "media").glob("*.py"), *(PACKAGE / "data" / name for name in ("equalise.py", "worker_pool.py"))]
ROUTES = [PACKAGE / "server" / name for name in ("uploads.py", "guard.py", "jobs.py")]
STAGES = (DECODING, SCORING, "Drawing the heat-map", FOLLOWING, "Judging")  # of jobs
SELF_EVIDENT = (401, 429, 503)  # of which the page says what there is to say itself
NOT_MET = ("expected a", "not a file", "decord is not", "no timestamps", "Expected a form", "The field file", "{}. Accepted")
INTERVALS = {"auc": (0.9, 0.97)}
SEEN = {"named": ["swap", "gan"], "n_fake": 40, "auc": 0.95, "auc_interval": (0.9, 0.97), "intervals": INTERVALS}
GOOD = {"auc": 0.95, "auc_interval": [0.92, 0.97], "n": 200, "n_real": 100, "n_fake": 100, "n_groups": 100, "by_source": {},
        "confusion": {"tn": 90, "fp": 10, "tp": 90, "fn": 10}}  # fmt: skip
UNNAMED = SEEN | {"named": []}
SOURCES = [{"seen": SEEN, "unseen": SEEN, "unknown": UNNAMED}, {"seen": SEEN, "unknown": SEEN},
           {"unseen": UNNAMED, "unknown": SEEN}, {"unknown": UNNAMED}, {"unknown": SEEN | {"intervals": {}, "n_fake": 1}},
           {"seen": UNNAMED, "unseen": SEEN}, {"seen": SEEN | {"named": list("abcdefgh")}}]  # fmt: skip
TESTS = [*SOURCES, *(each | {"fakes_used_for": "validation"} for each in SOURCES), {}, {"seen": SEEN}, {"seen": UNNAMED},
         {"seen": SEEN, "unseen": SEEN}, {"unseen": SEEN}, {"seen": SEEN, "unseen": SEEN | {"auc_interval": None}},
         {"auc": 0.525, "auc_interval": [0.45, 0.6]}, {"auc_interval": None}, {"auc": 0.1, "auc_interval": [0.05, 0.2]},
         {"auc": None, "auc_interval": None, "n_fake": 0}, {"shortcut_intervals": {"all": (0.5, 0.95)}},
         {"verdicts": {"precision": 0.2, "prevalence": 0.01, "unfamiliar": {"share": 0.5, "level": 0.05}}}]  # fmt: skip


def sentences(folder):
    """Return them; `folder` is one for a few files."""
    return [*of_findings(), *of_detectors(), *of_timelines(), *explanation.METHOD_NOTES.values(), *of_unreadable_files(folder),
            *of_refusals(), *of_limits(), *STAGES]  # fmt: skip


def of_findings():
    """Return what is said of the verdict on a file."""
    places = (Place("real", 140, 0.007, (0.001, 0.039)), Place("fake", 120, 0.617, (0.528, 0.699)),
              Place("real", 4000, 0.0002, (0.0001, 0.9996)))  # fmt: skip
    verdict = {"error": None, "probability": 0.93, "note": "damaged: 28 of 50 frames intact", "unfamiliar": True,
               "familiarity": 0.004}  # fmt: skip
    for used, reason in zip(("", "train", "validation", "test"), 2 * ("other content", "other processing"), strict=True):
        found = Finding(verdict | {"unfamiliar_reason": reason}, None, places, ((0.5, 0.593), (0.1, 0.117), (0.01, 0.02)), used)
        yield from (*meaning(SimpleNamespace(prevalence=0.5), found), *file_caveats(found))


def of_detectors():
    """Return what is said of how good a detector is, and of what it is not for."""
    yield from (case_model.NOT_MEASURED, case_model.SAMPLE, *Calibration(1.0, 0.0, 0.5, reals=19, fakes=50).warnings)
    for test, shortcuts in product(TESTS, ({}, {"all": 0.6}, {"all": 0.93}, {"all": 0.99})):
        headline, not_for, _ = case_model.judgement(Report("run", {"test": GOOD | test}, shortcuts=shortcuts))
        yield from (headline, *not_for)


def of_timelines():
    """Return what is said of the points of a timeline."""
    for taken, span, stride in ((1, 1, 1), (1, 1, 2), (8, 8, 1), (8, 8, 4), (8, 15, 4)):
        starts = np.arange(0, 60, stride)
        windows = starts[:, None] + np.linspace(0, span - 1, taken).astype(int)
        scores = np.zeros(len(starts))
        yield Timeline(windows, scores, scores, np.arange(100) / 25, stride, 0.5).describe()


def of_unreadable_files(folder):
    """Return why a few files cannot be read."""
    jpeg, png = io.BytesIO(), io.BytesIO()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    picture.save(jpeg, "jpeg")
    picture.save(png, "png")
    for content in (b"", b"Dear Sir", jpeg.getvalue()[:-40], jpeg.getvalue()[:60], png.getvalue()[:-40], png.getvalue()[:-8]):
        (folder / "file").write_bytes(content)
        try:
            read.read_media(folder / "file", 1, None, 1, Limits())
        except sniff.MediaError as error:
            yield str(error)


def of_refusals():
    """Return why files cannot be read and requests are refused, as the code has it, with 7 for what varies."""
    for path in (*READERS, *ROUTES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("MediaError", "WorkerFailure", "HTTPException"):
                shown = not (isinstance(node.args[0], ast.Constant) and node.args[0].value in SELF_EVIDENT)
                found = [text for text in map(template, node.args) if text and shown and not text.startswith(NOT_MET)]
                yield from (text.replace("{}", "7").replace("--data.timeout", "--limits.decode_seconds") for text in found)
            elif isinstance(node, ast.Return) and path.name == "containers.py" and " " in (reason := template(node.value) or ""):
                yield f"truncated: {reason.replace('{}', '7')}"  # of `inspect` and its like
    yield from (f"not an image or video in a supported format: {reason}" for reason in sniff._UNSUPPORTED)
    yield from (worker_pool.CRASHED, worker_pool.NOT_STARTED)


def template(node):
    """Return the text of a literal, with {} for what an f-string fills in; None for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    if isinstance(node, ast.BinOp):
        return (template(node.left) or "") + (template(node.right) or "") or None
    if isinstance(node, ast.Tuple | ast.IfExp):
        return template(node.elts[0] if isinstance(node, ast.Tuple) else node.body)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def of_limits():
    """Return what is said of files that exceed a limit, with the flags of `serve`."""
    units = {"pixels": ["pixels (9 x 9) announced"], "bytes": ["bytes"], "seconds": ["seconds announced"],
             "frames": ["frames announced", "frames or more"]}  # fmt: skip
    for name, several in units.items():
        for unit in several:
            yield Limits().check(name, 1e12, unit).replace("--data.limits.", "--limits.")
