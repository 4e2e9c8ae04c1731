"""What the server knows about its models besides their scores: what a probability means, how good they are, heat-maps."""

import dataclasses
import threading
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from tfdetect.evaluation import single_file
from tfdetect.pages.case_content import Finding, Model, file_caveats, meaning
from tfdetect.server.decoding import BASE_SECONDS
from tfdetect.server.limits import ServeLimits
from tfdetect.server.models import ServedModel
from tfdetect.server.uploads import Upload, without_paths
from tfdetect.serving.predictor import Verdict
from tfdetect.verdict_settings import AS_TRAINED
from tfdetect.workflow import case_model
from tfdetect.workflow.case import Judge

MAX_KEPT = 32  # versions of models


@dataclass(frozen=True)
class KnownModel:
    """A served model, as it reads uploads, and what is known about it."""

    served: ServedModel
    judge: Judge

    @cached_property
    def model(self) -> Model:
        """How good it is, on what, and what it must not be used for; its hashes take a second per gigabyte."""
        return case_model.describe(self.judge, AS_TRAINED)

    def sentences(self, verdict: Verdict, sha: str) -> dict[str, list[str]]:
        """Return the `meaning` of a verdict, and its `caveats`, in sentences; none for a file that was not scored."""
        if verdict.score is None:
            return {"meaning": [], "caveats": []}
        places = single_file.places(verdict.score, self.judge.split("test"))
        shares = single_file.by_prevalence(verdict.score, self.judge.predictor.calibration)
        finding = Finding(asdict(verdict), None, places, shares, self.judge.splits.get(sha, ""))
        return {"meaning": meaning(self.model, finding), "caveats": file_caveats(finding)}


class Judges:
    """What is known about each model, found out when it is first asked for."""

    def __init__(self, limits: ServeLimits):
        self.limits, self._lock = limits, threading.Lock()
        self._known: dict[tuple[str, int], KnownModel] = {}

    def of(self, served: ServedModel) -> KnownModel:
        """Return what is known about a model."""
        with self._lock:
            found = self._known.pop((served.name, served.version), None) or KnownModel(served, self._judge(served))
            self._known[served.name, served.version] = found
            older = [key for key in self._known if key[0] == served.name and key[1] < served.version]
            for key in older or list(self._known)[:-MAX_KEPT]:
                del self._known[key]  # which holds its SavedModel
        return found

    def _judge(self, served: ServedModel) -> Judge:
        """Return the model as a judge of uploads: videos are read by PyAV alone, whose formats and protocols are limited."""
        run = served.detector.run
        limits = self.limits.of_files(run.data.limits)
        data = dataclasses.replace(run.data, workers=1, timeout=BASE_SECONDS, decoder="pyav", limits=limits)
        predictor = served.predictor.with_limits(limits, data.decoding)
        return Judge(served.detector.artifact, run, data, predictor)


def verdict_answer(verdict: Verdict, upload: Upload) -> dict[str, Any]:
    """Return the fields of a verdict but its path; no text names a path."""
    found = {name: value for name, value in asdict(verdict).items() if name != "path"}
    return found | {name: found[name] and without_paths(found[name], upload) for name in ("note", "error")}
