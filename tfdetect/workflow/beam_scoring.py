"""Score files by Beam's RunInference. Beam's own handler for TensorFlow loads other formats and knows nothing of files."""

import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from tfdetect.data import worker_pool
from tfdetect.data.prepare.beam import BeamRunner
from tfdetect.workflow.elsewhere import ScoreFiles

if TYPE_CHECKING:
    from apache_beam import Pipeline

    from tfdetect.serving.predictor import Verdict

BATCH = {"min_batch_size": 16, "max_batch_size": 128}  # files that a worker decodes and scores in one call
PLAN_NAME = "files.jsonl"


def on_beam(runner: BeamRunner, workers: int | None, score: ScoreFiles, paths: Iterable[str | Path]) -> "Generator[Verdict]":
    """Yield the verdict on each file in turn, once the pipeline has scored all of them.

    The pipeline's files are in a subfolder of `runner.folder` until then. Raises UserError as `BeamRunner` does.
    """
    from tfdetect.serving.predictor import Verdict

    folder = runner.folder / f"predict-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        with (folder / PLAN_NAME).open("w") as plan:
            plan.writelines(f"{json.dumps([number, str(path)])}\n" for number, path in enumerate(paths))
        runner.run_pipeline(_Scoring(folder, score, workers))
        for row in _in_order(sorted(folder.glob("verdicts-*"))):
            yield Verdict(**row)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(runner.folder.iterdir()):
            runner.folder.rmdir()


@dataclass(frozen=True)
class _Scoring:
    """Adds the steps to a pipeline: the lines of a plan, [number, path], become lines [number, verdict]."""

    folder: Path
    score: ScoreFiles
    workers: int | None

    def __call__(self, pipeline: "Pipeline", all_cores: bool) -> None:
        import apache_beam as beam
        from apache_beam.ml.inference.base import ModelHandler, RunInference

        score, workers = self.score, self.workers or (None if all_cores else 1)

        class Handler(ModelHandler):  # type: ignore[misc]  # apache_beam is optional and untyped
            """Its model is the predictor of a run, which knows how to read files."""

            def load_model(self) -> ScoreFiles:
                worker_pool.keep_processes()
                score.load()
                return score

            def run_inference(self, batch: Sequence[str], model: ScoreFiles, inference_args: Any = None) -> Iterator[str]:
                numbers, paths = zip(*map(json.loads, batch), strict=True)
                for number, verdict in zip(numbers, model(paths, workers), strict=True):
                    yield json.dumps([number, asdict(verdict)])

            def batch_elements_kwargs(self) -> dict[str, int]:
                return BATCH

        lines = pipeline | "files" >> beam.io.ReadFromText(str(self.folder / PLAN_NAME)) | "spread" >> beam.Reshuffle()
        _ = lines | "score" >> RunInference(Handler()) | "verdicts" >> beam.io.WriteToText(str(self.folder / "verdicts"))


def _in_order(shards: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield the verdicts in the order of their numbers, 0, 1, ...; only their places are in memory."""
    places = []
    for shard, path in enumerate(shards):
        with path.open("rb") as file:
            start = 0
            for line in file:
                places.append((int(line[1 : line.index(b",")]), shard, start))
                start += len(line)
    order = np.array(places, np.int64).reshape(-1, 3)
    order = order[order[:, 0].argsort()]
    if (order[:, 0] != np.arange(len(order))).any():  # some runners write a part twice or lose one
        raise RuntimeError(f"the pipeline wrote {len(order)} verdicts, which are not one of each file")
    files = [path.open("rb") for path in shards]
    try:
        for _, shard, start in order:
            files[shard].seek(start)
            yield json.loads(files[shard].readline())[1]
    finally:
        for file in files:
            file.close()
