"""Decode on Apache Beam: the same function for each file as on one machine, on as many machines as a runner has.

A file that cannot be used goes to an output of its own; clips go to TFRecord shards, and from there into the cache's ordinary
entries. What Beam ran over is known afterwards as if this machine had done it: `prepare.py` goes on where it was.
"""

import contextlib
import difflib
import io
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfdetect.data import worker_pool
from tfdetect.data.media.read import digest
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import Cache, failure_result
from tfdetect.data.worker_pool import WorkerFailure
from tfdetect.errors import UserError
from tfdetect.files import size_and_mtime, tensorflow_path, write_bytes

LOCAL_RUNNER = "FnApiRunner"  # Beam's DirectRunner fetches a program from the network on first use
BATCH_SIZES = (64, 512)  # files that a worker's processes are started for, at least and at most
PLAN_NAME = "files.jsonl"


@dataclass(frozen=True)
class BeamRunner:
    """How and where to run. `results` stands where `prepare.py` takes the results of this machine's processes."""

    folder: Path  # for the shards; each run makes a folder of its own in it
    runner: str = LOCAL_RUNNER
    options: Sequence[str] = ()  # Beam's own flags
    shards: int | None = None  # by default as many as the runner likes, without a shuffle of all clips

    def results(self, paths: Iterable[str], cache: Cache, workers: int | None = None,
                seconds: float | None = None) -> Iterator[tuple[str, dict[str, Any] | WorkerFailure]]:  # fmt: skip
        """Decode the files, each in at most `seconds`; put the clips into the cache; yield (path, what became of it).

        `workers` are processes for each of Beam's workers: by default all cores where Beam's one worker is this process,
        one elsewhere. Raises ValueError without apache-beam, for wrong options and where the runner fails.
        """
        files = [(path, *size_and_mtime(path)) for path in paths]
        if not files:
            return
        sizes = Counter(size for _, size, _ in files)
        settings = [cache.folder.name, repr(cache.spec.limits), seconds]
        plan = "".join(json.dumps(line) + "\n" for line in [settings, *([*file, sizes[file[1]] > 1] for file in files)])
        folder = self.finished(plan) or self.run(plan, _DecodeBatch(cache, workers, seconds))
        unpack(folder, cache)
        for path, lost, _, found in _read_lines(folder, "rows", "failures"):
            yield path, WorkerFailure(found["error"]) if lost else found

    def finished(self, plan: str) -> Path | None:
        """A run over the same files that went well, while its unpacking did not: the disk was full, perhaps."""
        for folder in sorted(self.folder.absolute().glob("[0-9]" * 4)):
            written = folder / PLAN_NAME
            if written.is_file() and written.read_text() == plan and any(_read_lines(folder, "rows")):
                return folder  # one without clips has nothing to unpack, and its files are worth another try
        return None

    def run(self, plan: str, decode: "_Decode") -> Path:
        """Run the pipeline. Returns its folder, which has its number only when it is whole."""
        options = self.parsed()
        folder = next(path for number in range(10_000) if not (path := self.folder.absolute() / f"{number:04d}").exists())
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)  # what a killed run left
        part.mkdir(parents=True)
        try:
            (part / PLAN_NAME).write_text(plan)
            with tensorflow_path(part) as link:
                _run_pipeline(self, options, decode, Path(link))
            return part.rename(folder)
        except (UserError, OSError):
            raise
        except Exception as error:  # runners raise what they like, with the worker's traceback in the message
            reason = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            if reason[-1].startswith("KeyboardInterrupt"):  # Ctrl-C within a step of this process
                raise KeyboardInterrupt from error
            raise UserError(f"{self.runner} failed: {reason[-1].strip()}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def parsed(self) -> Any:
        """Beam's PipelineOptions. Flags that nobody knows, Beam drops with a warning at most: here they are refused.

        Other runners than the local one may know more flags than Beam's Python does, but none with a dot, as ours have.
        """
        try:
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise UserError("apache-beam is not installed: pip install 'tfdetect[beam]'.") from error
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                options = PipelineOptions(list(self.options))
                given = options.get_all_options(retain_unknown_options=True)
        except SystemExit as stop:  # argparse ends the process
            raise UserError(f"a wrong option for Beam: {said.getvalue().strip().rpartition('error: ')[2]}.") from stop
        known = PipelineOptions([]).get_all_options()
        for name in given.keys() - known.keys():
            if self.runner == LOCAL_RUNNER or "." in name:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Perhaps you meant --{near[0]}." if near else " `prepare.py --help` shows its own flags."
                raise UserError(f"neither prepare nor Beam has an option --{name}.{hint}")
        return options


def _run_pipeline(asked: BeamRunner, options: Any, decode: "_Decode", folder: Path) -> None:
    """folder/PLAN -> shards of clips, each content once; rows; failures."""
    import apache_beam as beam
    from apache_beam.io.tfrecordio import WriteToTFRecord
    from apache_beam.options.pipeline_options import DirectOptions

    if asked.runner == LOCAL_RUNNER and options.view_as(DirectOptions).direct_running_mode == "in_memory":
        decode = replace(decode, all_cores=True)
    elif asked.runner == LOCAL_RUNNER:  # the workers that Beam starts here run from a checkout, too, installed or not
        places = [str(Path(__file__).parents[3]), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(places))

    class Decode(beam.DoFn):  # type: ignore[misc]
        def process(self, batch: list[list[str]]) -> Iterator[Any]:
            for name, value in decode(batch):
                yield beam.pvalue.TaggedOutput(name, value)

    with beam.Pipeline(asked.runner, options) as pipeline:
        found = (
            pipeline
            | "files" >> beam.io.ReadFromText(str(folder / PLAN_NAME), skip_header_lines=1)  # of any number; a job's size is limited
            | "spread" >> beam.Reshuffle()
            | "content" >> beam.Map(lambda line: (_content_key(line), line))
            | "together" >> beam.GroupByKey()
            | "lines" >> beam.Map(lambda group: list(group[1]))
            | "batch" >> beam.BatchElements(*BATCH_SIZES)
            | "decode" >> beam.ParDo(Decode()).with_outputs("clips", "rows", "failures")
        )
        shards = WriteToTFRecord(str(folder / "clips"), file_name_suffix=".tfrecord", num_shards=asked.shards or 0)
        _ = found.clips | "clips" >> shards
        for name in ("rows", "failures"):
            _ = found[name] | name >> beam.io.WriteToText(str(folder / name), file_name_suffix=".jsonl")


def _content_key(line: str) -> str:
    """What files of one content share, and no others. Only one of a size that others have, too, need be read for it."""
    path, _, _, common = json.loads(line)
    try:
        return digest(path) if common else line
    except (OSError, MediaError):
        return line


@dataclass(frozen=True)
class _DecodeBatch:
    """Lines of the plan, those of one content together -> ("clips", record), one for each content, and for each file a line
    of JSON, ("rows" or "failures", [path, whether it was lost, whether the cache remembers it, the cache's result]).

    Decoding happens in processes of its own: a file that brings one down does not bring down Beam's worker.
    """

    cache: Cache
    workers: int | None
    seconds: float | None
    all_cores: bool = False

    def __call__(self, batch: Iterable[list[str]]) -> Iterator[tuple[str, Any]]:
        paths = [json.loads(line)[0] for lines in batch for line in lines]
        workers = self.workers or (None if self.all_cores else 1)
        seen = set()
        with tempfile.TemporaryDirectory() as temporary:
            cache = replace(self.cache, root=Path(temporary))
            for path, result in worker_pool.map_unordered(paths, cache.add, workers, self.seconds):
                lost = isinstance(result, WorkerFailure)
                found = failure_result("", result.reason) if isinstance(result, WorkerFailure) else result
                sha, entry = found["sha"], cache.entry(found["sha"])
                about = entry.with_suffix(".json")
                if not found["error"] and sha not in seen:
                    seen.add(sha)
                    yield "clips", _serialise(sha, about.read_bytes(), entry.read_bytes())
                    entry.unlink()  # a worker's disk holds one clip at a time, not a batch of them
                kept = bool(sha) and about.exists()
                yield "failures" if found["error"] else "rows", json.dumps([path, lost, kept, found])


def _serialise(sha: str, about: bytes, entry: bytes) -> bytes:
    """A tf.train.Example of a clip: `sha` of the file, and what the cache holds of it, `about` (.json) and `entry` (.npy or
    .tfrecord), as bytes."""
    import tensorflow as tf

    parts = {"sha": sha.encode(), "about": about, "entry": entry}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in parts.items()}
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def unpack(folder: Path, cache: Cache) -> None:
    """A run's clips and failures -> entries of the cache, byte for byte as this machine would have made them.

    Entries that exist are left alone, so one that was interrupted goes on. Raises OSError where the cache cannot be written.
    """
    import tensorflow as tf

    shards = sorted(os.fsencode(path) for path in folder.glob("clips*.tfrecord"))
    for record in tf.data.TFRecordDataset(shards) if shards else ():
        features = tf.train.Example.FromString(record.numpy()).features.feature
        sha, about, entry = (features[name].bytes_list.value[0] for name in ("sha", "about", "entry"))
        target = cache.entry(sha.decode())
        if not (target.exists() and target.with_suffix(".json").exists()):
            write_bytes(target, entry)
            write_bytes(target.with_suffix(".json"), about)  # last, for what has one is whole
    for _, _, kept, found in _read_lines(folder, "failures"):
        target = cache.entry(found["sha"]).with_suffix(".json")
        if kept and cache.remembered(target) is None:
            cache.remember(target, found)


def _read_lines(folder: Path, *names: str) -> Iterator[Any]:
    for path in sorted(path for name in names for path in folder.glob(f"{name}-*.jsonl")):
        with path.open() as file:
            yield from map(json.loads, file)
