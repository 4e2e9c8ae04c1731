"""Decode with Apache Beam: the same function for each file as on one machine, on as many machines as the runner offers.

Workers write what they decode to files of their own, from which this process fills the cache in the order of the manifest. Files
that a failed or killed run has decoded are not decoded again. Files that Beam processed count as if this machine had done it.
"""

import contextlib
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from tfdetect import installation
from tfdetect.data import worker_pool
from tfdetect.data.media.read import digest
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import Cache, Decoded, failure_result
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.errors import UserError, suggestion
from tfdetect.files import plural, printable, size_and_mtime, tensorflow_path

LOCAL_RUNNER = "FnApiRunner"  # Beam's DirectRunner downloads a program on first use
BATCH_SIZES = (64, 512)  # minimum and maximum number of files per start of a worker's processes
PLAN_NAME = "files.jsonl"
File = tuple[str, int, int]  # path, size in bytes, modification time in nanoseconds


@dataclass(frozen=True)
class BeamRunner:
    """How and where to run the pipeline. Its `results` replaces `decode_locally` in `decode.prepare`."""

    folder: Path  # for what workers write; each run creates a numbered subfolder
    runner: str = LOCAL_RUNNER
    options: Sequence[str] = ()  # Beam's command-line flags
    verb: str = "prepare"  # for messages

    def results(self, paths: Iterable[str], cache: Cache, workers: int | None = None,
                seconds: float | None = None) -> Iterator[tuple[str, Decoded | WorkerFailure]]:  # fmt: skip
        """Decode the files, each within `seconds`, and yield (path, what became of it) in their order.

        `workers` is the number of processes per Beam worker; by default all cores if Beam's only worker is this process,
        else one. Raises UserError if apache-beam is missing, an option is wrong, or the runner fails or loses results; the next
        call with the same settings then decodes only what is missing.
        """
        files: list[File] = [(path, *size_and_mtime(path)) for path in paths]  # type: ignore[misc]
        settings = json.dumps({"cache": cache.folder.name, "limits": repr(cache.spec.limits), "timeout": seconds})
        rows = self.earlier_rows(settings, set(files))
        missing = [file for file in files if file not in rows]
        if rows:
            print(f"{plural(len(rows), 'file')} of {len(files):,} had been decoded by an earlier run.", file=sys.stderr)
        if missing:
            sizes = Counter(size for _, size, _ in missing)
            plan = [settings, *(json.dumps([*file, sizes[file[1]] > 1]) for file in missing)]
            rows.update(_read_rows(self.run(plan, cache, workers, seconds)))
        if lost := [path for path, *state in files if (path, *state) not in rows]:
            raise UserError(f"{self.runner} ended without a result for {plural(len(lost), 'file')}, the first is "
                            f"{printable(lost[0])}: repeat the command, which decodes only what is missing.")  # fmt: skip
        for file in files:
            yield file[0], rows[file].load()

    def earlier_rows(self, settings: str, files: Container[File]) -> "dict[File, _Row]":
        """Return what earlier runs with these settings have found out about these files, also if they failed or were killed."""
        found: dict[File, _Row] = {}
        for plan in sorted(self.folder.absolute().glob(f"[0-9]*/{PLAN_NAME}")):
            with plan.open() as lines:
                if lines.readline() == f"{settings}\n":
                    found.update((file, row) for file, row in _read_rows(plan.parent) if file in files and row.is_final)
        return found

    def run(self, plan: Sequence[str], cache: Cache, workers: int | None, seconds: float | None) -> Path:
        """Run the pipeline and return its folder, which is kept even if the pipeline fails, unless it holds no result."""
        self.parse_options()  # before there is a folder
        folder = next(path for number in range(10_000) if not (path := self.folder.absolute() / f"{number:04d}").exists())
        folder.mkdir(parents=True)
        try:
            (folder / PLAN_NAME).write_text("".join(f"{line}\n" for line in plan))
            with tensorflow_path(folder) as link:
                self.run_pipeline(_Decoding(Path(link), cache, workers, seconds))
        finally:
            if not next(_read_rows(folder), None):
                shutil.rmtree(folder, ignore_errors=True)
        return folder

    def run_pipeline(self, add_steps: Callable[[Any, bool], None]) -> None:
        """Run a pipeline to its end. `add_steps(pipeline, all_cores)` adds its steps, which may use all cores if Beam's only
        worker is this process. Raises UserError if an option is wrong or the runner fails."""
        options = self.parse_options()
        import apache_beam as beam
        from apache_beam.options.pipeline_options import DirectOptions

        all_cores = self.runner == LOCAL_RUNNER and options.view_as(DirectOptions).direct_running_mode == "in_memory"
        if self.runner == LOCAL_RUNNER and not all_cores:  # Beam's workers must find this package even if it is not installed
            places = [str(Path(__file__).parents[3]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
            os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))
        try:
            with beam.Pipeline(self.runner, options) as pipeline:
                add_steps(pipeline, all_cores)
        except (UserError, OSError):
            raise
        except Exception as error:  # runners raise any type, with the worker's traceback in the message
            reason = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            if reason[-1].startswith("KeyboardInterrupt"):  # Ctrl-C within a step that runs in this process
                raise KeyboardInterrupt from error
            raise UserError(f"{self.runner} failed: {reason[-1].strip()}") from error

    def parse_options(self) -> Any:
        """Return Beam's PipelineOptions. Raises UserError for unknown flags, which Beam itself would ignore with a warning.

        Other runners may know more flags than Beam's Python package, but none with a dot, as tfdetect's flags have. Also raises
        UserError for Beam's runner on Dask, which stops with an internal error or ends with exit code 0 and incomplete files.
        """
        if self.runner.rpartition(".")[2] == "DaskRunner":
            raise UserError("Beam's DaskRunner fails or loses results: use --runner dask, which needs no Beam.")
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise UserError("apache-beam is not installed: pip install 'tfdetect[beam]'.") from error
        stderr = io.StringIO()
        try:
            with contextlib.redirect_stderr(stderr):
                options = PipelineOptions(list(self.options))
                given = options.get_all_options(retain_unknown_options=True)
        except SystemExit as stop:  # argparse exits on errors
            reason = stderr.getvalue().strip().rpartition("error: ")[2]
            raise UserError(f"invalid option for Beam: {reason}.") from stop
        known = PipelineOptions([]).get_all_options()
        for name in given.keys() - known.keys():
            if self.runner == LOCAL_RUNNER or "." in name:
                help_command = installation.command(self.verb, "--help")
                hint = suggestion(name, known, "--") or f" `{help_command}` lists its flags."
                raise UserError(f"neither {self.verb} nor Beam has an option --{name}.{hint}")
        return options


@dataclass(frozen=True)
class _Decoding:
    """Adds the steps to a pipeline: read folder/PLAN_NAME, and decode each content once.

    Decoding runs in separate processes, so a file that crashes its decoder does not crash Beam's worker.
    """

    folder: Path
    cache: Cache
    workers: int | None
    seconds: float | None

    def __call__(self, pipeline: Any, all_cores: bool) -> None:
        import apache_beam as beam

        decoding = replace(self, workers=self.workers or (None if all_cores else 1))
        _ = (
            pipeline
            | "files" >> beam.io.ReadFromText(str(self.folder / PLAN_NAME), skip_header_lines=1)  # since job size is limited
            | "spread" >> beam.Reshuffle()
            | "content" >> beam.Map(lambda line: (_content_key(line), line))
            | "together" >> beam.GroupByKey()
            | "lines" >> beam.Map(lambda group: list(group[1]))
            | "batch" >> beam.BatchElements(*BATCH_SIZES)
            | "decode" >> beam.Map(decoding.decode_batch)
            | "end" >> beam.Reshuffle()  # FnApiRunner waits forever for a worker that was killed, unless it has outputs to read
        )

    def decode_batch(self, batch: list[list[str]]) -> None:
        """Decode lines of the plan, grouped by content, and append what became of each file to new files of this worker.

        They are not outputs of the pipeline, which a runner writes only at its end. Where a runner repeats a batch, there are
        more of them, which does no harm. A row means that its file is done, so it is written after the clip.
        """
        groups: dict[str, list[list[Any]]] = {}
        for lines in batch:
            files = [json.loads(line)[:3] for line in lines]
            groups.setdefault(files[0][0], []).extend(files)
        name = self.folder / f"batch-{uuid4().hex}"
        with open(f"{name}.clips", "wb") as clips, open(f"{name}.jsonl", "w") as rows:
            for path, outcome in worker_pool.map_unordered(groups, self.cache.decode_file, self.workers, self.seconds):
                crashed = isinstance(outcome, WorkerFailure)
                decoded = Decoded(failure_result("", outcome.reason)) if isinstance(outcome, WorkerFailure) else outcome
                clip = decoded.payload.tobytes() if isinstance(decoded.payload, np.ndarray) else decoded.payload or b""
                row = [crashed, decoded.result, decoded.facts, clips.tell(), len(clip)]
                clips.write(clip)
                clips.flush()
                rows.writelines(json.dumps([file, *row]) + "\n" for file in groups[path])
                rows.flush()


def _content_key(line: str) -> str:
    """Return a key that only files with equal bytes share. Files are hashed only if another file has the same size."""
    path, _, _, has_twin_size = json.loads(line)
    try:
        return digest(path) if has_twin_size else line
    except (OSError, MediaError):
        return line


@dataclass(frozen=True, slots=True)
class _Row:
    """A line that a worker has written: what became of a file, and where its clip is."""

    path: Path
    offset: int
    is_final: bool
    """The next run need not decode the file. One that could not be opened may be readable by then, and a clip is not here if the
    cache had it or somebody has deleted it."""

    def load(self) -> Decoded | WorkerFailure:
        """Return what the line says, with the clip."""
        with self.path.open("rb") as lines:
            lines.seek(self.offset)
            _, crashed, result, facts, start, length = json.loads(lines.readline())
        if crashed or not length:
            return WorkerFailure(result["error"]) if crashed else Decoded(result)
        with self.path.with_suffix(".clips").open("rb") as clips:
            clips.seek(start)
            return Decoded(result, clips.read(length), facts)


def _read_rows(folder: Path) -> Iterator[tuple[File, _Row]]:
    """Yield the files that a run has decoded, those of a killed worker included."""
    for path in sorted(folder.glob("batch-*.jsonl")):
        end, offset = size_and_mtime(path.with_suffix(".clips"))[0], 0
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # else its worker was killed meanwhile
                    (name, size, modified), crashed, result, _, start, length = json.loads(line)
                    is_final = crashed or (result["sha"] if result["error"] else 0 < length <= end - start)
                    yield (name, size, modified), _Row(path, offset, bool(is_final))
                offset += len(line)
