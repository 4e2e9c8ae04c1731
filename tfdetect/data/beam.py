"""Decode on Apache Beam: the same function for each file as on one machine, on as many machines as a runner has.

A file that cannot be used goes to an output of its own; clips go to TFRecord shards, and from there into the cache's ordinary
entries. What Beam ran over is known afterwards as if this machine had done it: `prepare.py` goes on where it was.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tfdetect.data import pool
from tfdetect.data.cache import Cache, failed
from tfdetect.data.pool import Lost
from tfdetect.files import atomic, write_json

LOCAL = "FnApiRunner"  # Beam's DirectRunner fetches a program from the network on first use
BATCH = 512  # files that a worker's processes are started for, at most


@dataclass(frozen=True)
class Beam:
    """How and where to run. `results` stands where `prepare.py` takes the results of this machine's processes."""

    folder: Path  # for the shards; each run makes a folder of its own in it
    runner: str = LOCAL
    options: Sequence[str] = ()  # Beam's own flags

    def results(self, paths: Iterable[str], cache: Cache, workers: int | None = None,
                seconds: float | None = None) -> Iterator[tuple[str, dict[str, Any] | Lost]]:  # fmt: skip
        """Decode the files, each in at most `seconds`; put the clips into the cache; yield (path, what became of it).

        `workers` are processes for each of Beam's workers: by default all cores on this machine, one elsewhere. Raises
        ValueError without apache-beam or with wrong options, and what the runner raises.
        """
        todo = [os.fsencode(path) for path in paths]  # names that are no text are not for Beam's coders
        if not todo:
            return
        numbers = (self.folder / f"{number:04d}" for number in range(10_000))
        folder = next(path for path in numbers if not path.exists())
        folder.mkdir(parents=True)
        decode = _Decode(cache, workers or (None if self.runner == LOCAL else 1), seconds)
        self.run(todo, decode, folder)
        unpack(folder, cache)
        for line in (line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()):
            path, lost, found = json.loads(line)
            if found["sha"]:
                write_json(cache.entry(found["sha"]).with_suffix(".json"), {k: v for k, v in found.items() if k != "sha"})
            yield path, Lost(found["error"]) if lost else found

    def run(self, paths: list[bytes], decode: "_Decode", folder: Path) -> None:
        """The pipeline, to its end."""
        try:
            import apache_beam as beam
            from apache_beam.io.tfrecordio import WriteToTFRecord
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError as error:
            raise ValueError("apache-beam is not installed: pip install 'tfdetect[beam]'.") from error

        class Decode(beam.DoFn):  # type: ignore[misc]
            def process(self, batch: list[bytes]) -> Iterator[Any]:
                for name, value in decode(batch):
                    yield beam.pvalue.TaggedOutput(name, value)

        with beam.Pipeline(self.runner, PipelineOptions(list(self.options))) as pipeline:
            batches = (
                pipeline
                | "files" >> beam.Create(paths)
                | "spread" >> beam.Reshuffle()
                | "batch" >> beam.BatchElements(min_batch_size=min(16, len(paths)), max_batch_size=BATCH)
            )
            found = batches | "decode" >> beam.ParDo(Decode()).with_outputs("clips", "rows", "failures")
            _ = found.clips | WriteToTFRecord(str(folder / "clips"), file_name_suffix=".tfrecord")
            for name in ("rows", "failures"):
                _ = found[name] | name >> beam.io.WriteToText(str(folder / name), file_name_suffix=".jsonl")


@dataclass(frozen=True)
class _Decode:
    """Files -> ("clips", record), ("rows" or "failures", line of JSON: path, whether it was lost, the cache's result).

    Decoding happens in processes of its own: a file that brings one down does not bring down Beam's worker.
    """

    cache: Cache
    workers: int | None
    seconds: float | None

    def __call__(self, batch: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
        with tempfile.TemporaryDirectory() as temporary:
            cache = replace(self.cache, root=Path(temporary))
            for path, result in pool.results(map(os.fsdecode, batch), cache.add, self.workers, self.seconds):
                lost = isinstance(result, Lost)
                found = failed("", result.reason) if isinstance(result, Lost) else result
                if not found["error"]:
                    yield "clips", _record(found["sha"], cache.entry(found["sha"]).read_bytes())
                yield "failures" if found["error"] else "rows", json.dumps([path, lost, found])


def _record(sha: str, entry: bytes) -> bytes:
    """A tf.train.Example of a clip: `sha` of the file, and `entry`, the bytes of the cache's .npy or .tfrecord."""
    import tensorflow as tf

    parts = {"sha": sha.encode(), "entry": entry}
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in parts.items()}
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def unpack(folder: Path, cache: Cache) -> None:
    """The clips in the shards of a run -> entries of the cache, byte for byte as this machine would have made them."""
    import tensorflow as tf

    shards = sorted(str(path) for path in folder.glob("clips*.tfrecord"))
    for record in tf.data.TFRecordDataset(shards) if shards else ():
        parts = tf.train.Example.FromString(record.numpy()).features.feature
        entry = cache.entry(parts["sha"].bytes_list.value[0].decode())
        if not entry.exists():
            with atomic(entry) as temporary:
                Path(temporary).write_bytes(parts["entry"].bytes_list.value[0])
