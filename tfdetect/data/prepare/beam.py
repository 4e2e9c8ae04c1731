"""Decode with Apache Beam: the same function for each file as on one machine, on as many machines as the runner offers.

Failed files go to a separate output. Clips go to TFRecord shards, and from there into the cache, in the order of the manifest.
Files that Beam processed count as if this machine had done it, so `prepare` can resume.
"""

import contextlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfdetect import installation
from tfdetect.data import worker_pool
from tfdetect.data.media.read import digest
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import Cache, Decoded, failure_result
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.errors import UserError, suggestion
from tfdetect.files import size_and_mtime, tensorflow_path

LOCAL_RUNNER = "FnApiRunner"  # Beam's DirectRunner downloads a program on first use
BATCH_SIZES = (64, 512)  # minimum and maximum number of files per start of a worker's processes
PLAN_NAME = "files.jsonl"


@dataclass(frozen=True)
class BeamRunner:
    """How and where to run the pipeline. Its `results` replaces `decode_locally` in `decode.prepare`."""

    folder: Path  # for the shards; each run creates a numbered subfolder
    runner: str = LOCAL_RUNNER
    options: Sequence[str] = ()  # Beam's command-line flags
    shards: int | None = None  # None lets the runner decide, which avoids shuffling all clips
    verb: str = "prepare"  # for messages

    def results(self, paths: Iterable[str], cache: Cache, workers: int | None = None,
                seconds: float | None = None) -> Iterator[tuple[str, Decoded | WorkerFailure]]:  # fmt: skip
        """Decode the files, each within `seconds`, and yield (path, what became of it) in their order.

        `workers` is the number of processes per Beam worker; by default all cores if Beam's only worker is this process,
        else one. Raises UserError if apache-beam is missing, an option is wrong or the runner fails.
        """
        files: list[tuple[str, int, int]] = [(path, *size_and_mtime(path)) for path in paths]  # type: ignore[misc]
        if not files:
            return
        sizes = Counter(size for _, size, _ in files)
        settings = [cache.folder.name, repr(cache.spec.limits), seconds]
        plan = [json.dumps(line) for line in [settings, *([*file, sizes[file[1]] > 1] for file in files)]]
        folder = self.find_finished(plan) or self.run(plan, _DecodeBatch(cache, workers, seconds))
        yield from unpack(folder, (path for path, *_ in files))

    def find_finished(self, plan: Sequence[str]) -> Path | None:
        """Return the folder of a finished run that decoded these files and perhaps others, which the cache had been given before
        unpacking was interrupted, for example by a full disk."""
        needed = {tuple(json.loads(line)[:3]) for line in plan}
        paths = {line[0] for line in needed}
        for folder in sorted(self.folder.absolute().glob("[0-9]" * 4)):
            first, *others = (folder / PLAN_NAME).read_text().splitlines() if (folder / PLAN_NAME).is_file() else [""]
            has_all = first == plan[0] and needed <= {tuple(json.loads(line)[:3]) for line in (first, *others)}
            if has_all and any(path in paths for path, *_ in _read_lines(folder, "rows")):
                return folder  # without clips, the files deserve another try
        return None

    def run(self, plan: Sequence[str], decode: "_DecodeBatch") -> Path:
        """Run the pipeline and return its folder, which gets its final name once it is complete."""
        folder = next(path for number in range(10_000) if not (path := self.folder.absolute() / f"{number:04d}").exists())
        partial = folder.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)  # left over from a killed run
        try:
            self.parse_options()  # before there is a folder
            partial.mkdir(parents=True)
            (partial / PLAN_NAME).write_text("".join(f"{line}\n" for line in plan))
            with tensorflow_path(partial) as link:
                self.run_pipeline(_Decoding(Path(link), decode, self.shards))
            return partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

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
    """Adds the steps to a pipeline: read folder/PLAN_NAME; write shards of clips (each content once), rows and failures."""

    folder: Path
    decode: "_DecodeBatch"
    shards: int | None

    def __call__(self, pipeline: Any, all_cores: bool) -> None:
        import apache_beam as beam
        from apache_beam.io.tfrecordio import WriteToTFRecord

        decode, folder = replace(self.decode, all_cores=all_cores), self.folder

        class Decode(beam.DoFn):  # type: ignore[misc]  # apache_beam is optional and untyped
            def process(self, batch: list[list[str]]) -> Iterator[Any]:
                for name, value in decode(batch):
                    yield beam.pvalue.TaggedOutput(name, value)

        outputs = (
            pipeline
            | "files" >> beam.io.ReadFromText(str(folder / PLAN_NAME), skip_header_lines=1)  # a file, since job size is limited
            | "spread" >> beam.Reshuffle()
            | "content" >> beam.Map(lambda line: (_content_key(line), line))
            | "together" >> beam.GroupByKey()
            | "lines" >> beam.Map(lambda group: list(group[1]))
            | "batch" >> beam.BatchElements(*BATCH_SIZES)
            | "decode" >> beam.ParDo(Decode()).with_outputs("clips", "rows", "failures")
        )
        shards = WriteToTFRecord(str(folder / "clips"), file_name_suffix=".tfrecord", num_shards=self.shards or 0)
        _ = outputs.clips | "clips" >> shards
        for name in ("rows", "failures"):
            _ = outputs[name] | name >> beam.io.WriteToText(str(folder / name), file_name_suffix=".jsonl")


def _content_key(line: str) -> str:
    """Return a key that only files with equal bytes share. Files are hashed only if another file has the same size."""
    path, _, _, has_twin_size = json.loads(line)
    try:
        return digest(path) if has_twin_size else line
    except (OSError, MediaError):
        return line


@dataclass(frozen=True)
class _DecodeBatch:
    """Decode lines of the plan, grouped by content, into tagged outputs.

    Yields ("clips", record) once for each content, and for each file ("rows" or "failures", line of JSON), where the line
    is [path, whether the decoder crashed, result]. Decoding runs in separate processes, so a file that crashes its decoder does
    not crash Beam's worker.
    """

    cache: Cache
    workers: int | None
    seconds: float | None
    all_cores: bool = False

    def __call__(self, batch: Iterable[list[str]]) -> Iterator[tuple[str, Any]]:
        paths = [json.loads(line)[0] for lines in batch for line in lines]
        workers = self.workers or (None if self.all_cores else 1)
        seen = set()
        for path, outcome in worker_pool.map_unordered(paths, self.cache.decode_file, workers, self.seconds):
            crashed = isinstance(outcome, WorkerFailure)
            result = failure_result("", outcome.reason) if isinstance(outcome, WorkerFailure) else outcome.result
            if not isinstance(outcome, WorkerFailure) and outcome.payload is not None and result["sha"] not in seen:
                seen.add(result["sha"])
                yield "clips", _serialise(outcome)
            yield "failures" if result["error"] else "rows", json.dumps([path, crashed, result])


def _serialise(decoded: Decoded) -> bytes:
    """Return a serialised tf.train.Example of a clip.

    Its features are `sha`, the hash of the file, `facts`, its properties, and `clip`, the bytes for a shard of the cache.
    """
    import tensorflow as tf

    clip = decoded.payload.tobytes() if isinstance(decoded.payload, np.ndarray) else decoded.payload
    values = {"sha": decoded.result["sha"].encode(), "facts": (decoded.facts or "").encode(), "clip": clip}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()}
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def unpack(folder: Path, paths: Iterable[str]) -> Iterator[tuple[str, Decoded | WorkerFailure]]:
    """Yield (path, what became of it) for these files of a finished run, in this order, whatever the order of its shards."""
    import tensorflow as tf

    rows = {path: (crashed, result) for path, crashed, result in _read_lines(folder, "rows", "failures")}
    places: dict[str, tuple[Path, int, int]] = {}  # hash -> shard, offset and length of the record
    for shard in sorted(folder.glob("clips*.tfrecord")):
        with shard.open("rb") as file:
            while head := file.read(12):  # the length of the record and its checksum
                start, length = file.tell(), int.from_bytes(head[:8], "little")
                example = tf.train.Example.FromString(file.read(length))
                places[example.features.feature["sha"].bytes_list.value[0].decode()] = shard, start, length
                file.seek(4, os.SEEK_CUR)
    for path in paths:
        crashed, result = rows[path]
        clip = facts = None
        if place := places.pop(result["sha"], None):
            shard, start, length = place
            with shard.open("rb") as file:
                file.seek(start)
                features = tf.train.Example.FromString(file.read(length)).features.feature
            clip, facts = (features[name].bytes_list.value[0] for name in ("clip", "facts"))
        yield path, WorkerFailure(result["error"]) if crashed else Decoded(result, clip, facts.decode() if facts else None)


def _read_lines(folder: Path, *names: str) -> Iterator[Any]:
    for path in sorted(path for name in names for path in folder.glob(f"{name}-*.jsonl")):
        with path.open() as file:
            yield from map(json.loads, file)
