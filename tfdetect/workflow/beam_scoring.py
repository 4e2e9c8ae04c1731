"""Score files by Beam's RunInference. Beam's own handler for TensorFlow loads other formats and knows nothing of files."""

import json
import shutil
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from tfdetect.data import worker_processes
from tfdetect.data.prepare.beam import BeamRunner
from tfdetect.errors import UserError
from tfdetect.files import plural, write_bytes
from tfdetect.workflow.elsewhere import ScoreFiles

if TYPE_CHECKING:
    from apache_beam import Pipeline

    from tfdetect.serving.predictor import Verdict

BATCH = {"min_batch_size": 16, "max_batch_size": 128}  # files that a worker decodes and scores in one call
PLAN_NAME = "files.jsonl"


def on_beam(runner: BeamRunner, workers: int | None, score: ScoreFiles, paths: Iterable[str | Path]) -> "Generator[Verdict]":
    """Yield the verdict on each file in turn, once the pipeline has ended.

    If it fails, the verdicts that it has come to are yielded before its error is raised, so that `predict --out` stores them and
    can go on. The pipeline's files are in a subfolder of `runner.folder` until then. Raises UserError as `BeamRunner` does, and
    if the runner loses verdicts.
    """
    folder = runner.folder / f"predict-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    count = 0
    try:
        with (folder / PLAN_NAME).open("w") as plan:
            for count, path in enumerate(paths, 1):
                plan.write(f"{json.dumps([count, str(path)])}\n")
        try:
            runner.run_pipeline(_Scoring(folder, score, workers))
        finally:
            found = yield from _in_order(sorted(folder.glob("verdicts-*")))
        if found < count:
            raise UserError(f"{runner.runner} ended without a verdict on {plural(count - found, 'file')}: repeat the command.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(runner.folder.iterdir()):
            runner.folder.rmdir()


@dataclass(frozen=True)
class _Scoring:
    """Adds the steps to a pipeline: the lines of a plan, [number, path], become lines [number, verdict].

    Workers write them to files of their own, since a runner writes the outputs of a pipeline only at its end.
    """

    folder: Path
    score: ScoreFiles
    workers: int | None

    def __call__(self, pipeline: "Pipeline", all_cores: bool) -> None:
        import apache_beam as beam
        from apache_beam.ml.inference.base import ModelHandler, RunInference

        score, workers, folder = self.score, self.workers or (None if all_cores else 1), self.folder

        class Handler(ModelHandler):  # type: ignore[misc]  # apache_beam is optional and untyped
            """Its model is the predictor of a run, which knows how to read files."""

            def load_model(self) -> ScoreFiles:
                worker_processes.keep_processes()
                score.load()
                return score

            def run_inference(self, batch: Sequence[str], model: ScoreFiles, inference_args: Any = None) -> Sequence[int]:
                numbers, paths = zip(*map(json.loads, batch), strict=True)
                rows = zip(numbers, map(asdict, model(paths, workers)), strict=True)
                write_bytes(folder / f"verdicts-{uuid4().hex}", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
                return numbers

            def batch_elements_kwargs(self) -> dict[str, int]:
                return BATCH

        lines = pipeline | "files" >> beam.io.ReadFromText(str(self.folder / PLAN_NAME)) | "spread" >> beam.Reshuffle()
        # Without outputs to read, FnApiRunner would wait forever for a worker that was killed.
        _ = lines | "score" >> RunInference(Handler()) | "end" >> beam.Reshuffle()


def _in_order(shards: Sequence[Path]) -> "Generator[Verdict, None, int]":
    """Yield the verdicts in the order of their numbers, and return how many there are; only their places are in memory."""
    from tfdetect.serving.predictor import Verdict

    places = []
    for shard, path in enumerate(shards):
        with path.open("rb") as file:
            start = 0
            for line in file:
                places.append((int(line[1 : line.index(b",")]), shard, start))
                start += len(line)
    order = np.array(places, np.int64).reshape(-1, 3)
    _, firsts = np.unique(order[:, 0], return_index=True)  # some runners repeat a batch
    for _, shard, start in order[firsts]:
        with shards[shard].open("rb") as file:
            file.seek(start)
            yield Verdict(**json.loads(file.readline())[1])
    return len(firsts)
