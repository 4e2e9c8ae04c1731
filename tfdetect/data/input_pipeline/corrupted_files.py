"""The clips of a file after corruptions of the whole file, as a user would send it.

A picture is altered at its native size, and a video is encoded anew from its first frame to its last.

A file is decoded once for all corruptions of its frames. Re-encoding a video takes all of its frames: each decoding feeds up to
ENCODERS encoders, and each copy is then read like any other file.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path

import av
import cv2
import numpy as np

from tfdetect import plugins
from tfdetect.corruption_spec import CORRUPTIONS, CorruptionStep, parse
from tfdetect.data import deadline
from tfdetect.data.input_pipeline.native import NumberedSteps, corrupt, draw
from tfdetect.data.media import containers, encode
from tfdetect.data.media.frames import Media
from tfdetect.data.media.read import read_media, read_video
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure

FAILURES = (MediaError, OSError, av.FFmpegError)  # of one file
ENCODERS = 4  # at a time; each holds some forty frames
SLOWER = 40  # encoding takes at most so many times as long as the allowance for decoding (deadline.py)


@dataclass(frozen=True)
class FileCorruption:
    """A file, and the corruptions that are to be applied to it, one at a time."""

    path: str
    sha: str  # decides all draws, so that a file is cropped at the same place by every corruption
    texts: tuple[str, ...]
    is_video: bool = False
    frames: int = 1  # that are intact; 1 for an image

    @property
    def seed(self) -> tuple[int, int]:
        """The seed of all draws."""
        return int(self.sha[:7], 16), 0


@dataclass(frozen=True)
class ClipMaker:
    """Make the clip of a file after each of its corruptions, as a task for `worker_pool.map_unordered`."""

    spec: ClipSpec
    folder: Path
    """For copies of videos."""
    plugins: tuple[Path, ...] = ()
    """Files that register corruptions."""
    quick: bool = False
    """Encode videos with the presets of `encode.QUICK`."""

    def __call__(self, file: FileCorruption) -> list[Media | WorkerFailure]:
        """Return the clip, or why there is none, for each of `file.texts`."""
        _load_plugins(self.plugins)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            return _Clips(self.spec, file, Path(folder), self.quick).make()


@cache
def _load_plugins(paths: tuple[Path, ...]) -> None:
    """Load plugins into this process, once."""
    plugins.load(paths)


@dataclass(frozen=True)
class _Encoding:
    """One encoding of a video: what happens to its frames before, and the codec."""

    steps: NumberedSteps
    codec: CorruptionStep | None  # None: without loss


@dataclass
class _Clips:
    """Makes the clips of one file."""

    spec: ClipSpec
    file: FileCorruption
    folder: Path  # for copies; emptied by the caller
    quick: bool = False

    def make(self) -> list[Media | WorkerFailure]:
        """Return the clip after each corruption, or why there is none."""
        chains = [self.split(text) for text in self.file.texts]
        first = {n: encodings[0] for n, (encodings, _) in enumerate(chains) if encodings}
        copies = self.encode_first(first)
        return [self.make_one(n, *chain, copies.get(n)) for n, chain in enumerate(chains)]

    def split(self, text: str) -> tuple[list[_Encoding], NumberedSteps]:
        """Return the encodings of the whole video that a corruption takes, and the steps after the last of them."""
        encodings: list[_Encoding] = []
        waiting: list[tuple[int, CorruptionStep]] = []
        for number, step in enumerate(parse(text).steps):
            if CORRUPTIONS[step.name].encodes_video and step.name != "fps":
                encodings.append(_Encoding(waiting, step))
                waiting = []
            else:
                waiting.append((number, step))
        # A video is equalised as a file, and without the whole file no frame can be dropped.
        if self.file.is_video and ((self.spec.plan and waiting) or any(step.name == "fps" for _, step in waiting)):
            return [*encodings, _Encoding(waiting, None)], []
        return encodings, waiting

    def encode_first(self, encodings: dict[int, _Encoding]) -> "dict[int, _Copy | WorkerFailure]":
        """Return the copies that start from the file itself, by number."""
        copies: dict[int, _Copy | WorkerFailure] = {}
        numbers = list(encodings)
        for start in range(0, len(numbers), ENCODERS):
            group = numbers[start : start + ENCODERS]
            try:
                source = _Copy(self.file.path, self.file.frames, frame_rate(self.file.path))
                made: Sequence[_Copy | WorkerFailure] = self.encode(source, [encodings[n] for n in group], f"{start}")
            except FAILURES as error:
                made = [WorkerFailure(failure_reason(error))] * len(group)
            copies.update(zip(group, made, strict=True))
        return copies

    def encode(self, source: "_Copy", encodings: Sequence[_Encoding], name: str) -> "list[_Copy]":
        """Encode a video several times while it is decoded once."""
        writers = [_CopyWriter(str(self.folder / f"{name}-{n}.mp4"), encoding, source.fps, self.file.seed, self.quick)
                   for n, encoding in enumerate(encodings)]  # fmt: skip

        def start() -> None:
            for writer in writers:
                writer.start()

        def add_frame(position: int, frame: np.ndarray) -> None:
            deadline.extend(pixels=SLOWER * len(writers) * frame.shape[0] * frame.shape[1])
            for writer in writers:
                writer.add_frame(frame)

        with ExitStack() as stack:
            for writer in writers:
                stack.callback(writer.close)
            read_video(source.path, source.frames, None, 16, self.spec.limits, add_frame, decoding=self.spec.decoding,
                       on_restart=start)  # fmt: skip
        return [_Copy(writer.path, writer.written, float(writer.rate)) for writer in writers]

    def make_one(self, number: int, encodings: Sequence[_Encoding], rest: NumberedSteps,
                 copy: "_Copy | WorkerFailure | None") -> Media | WorkerFailure:  # fmt: skip
        """Return the clip of a copy of the file, or of the file itself, after the rest of the steps."""
        if isinstance(copy, WorkerFailure):
            return copy
        try:
            for k, encoding in enumerate(encodings[1:], 1):
                assert copy is not None
                [copy] = self.encode(copy, [encoding], f"again-{number}-{k}")
            if self.spec.plan and not rest:
                return self.spec.read(copy.path if copy else self.file.path)
            media = self.read_native(copy.path) if copy else self.native
            deadline.extend(pixels=SLOWER * media.frames[..., 0].size)
            changed = replace(media, frames=corrupt(rest, media.frames, self.file.seed))
            return self.read_image(changed) if self.spec.plan else self.spec.of_native(changed)
        except FAILURES as error:
            return WorkerFailure(failure_reason(error))

    @cached_property
    def native(self) -> Media:
        """The frames of the file itself that its clip consists of."""
        return self.read_native(self.file.path)

    def read_native(self, path: str) -> Media:
        """Read those frames at native size."""
        return read_media(path, self.spec.frames, self.spec.fps, None, self.spec.limits, decoding=self.spec.decoding)

    def read_image(self, media: Media) -> Media:
        """Return the clip of an image that is to be equalised as a file first."""
        path = self.folder / "image.bmp"
        path.write_bytes(cv2.imencode(".bmp", media.frames[0][..., ::-1])[1].tobytes())
        return self.spec.read(path)


@dataclass(frozen=True)
class _Copy:
    """A video file."""

    path: str
    frames: int
    fps: float


class _CopyWriter:
    """Writes a corrupted copy of a video, frame by frame."""

    def __init__(self, path: str, encoding: _Encoding, fps: float, seed: tuple[int, int], quick: bool):
        self.quick, dropping = quick, [step.high for _, step in encoding.steps if step.name == "fps"]
        self.path, self.seed, self.codec, self.source_rate = path, seed, encoding.codec, fps
        self.steps = [(number, step) for number, step in encoding.steps if step.name != "fps"]
        self.rate = Fraction(min([fps, *dropping])).limit_denominator(1001)
        self.stack = ExitStack()
        self.start()

    def start(self) -> None:
        """Forget what was written, since the frames will be passed from the first again."""
        self.close()
        self.seen = self.written = 0

    def close(self) -> None:
        """Finish the file."""
        self.stack.close()
        self.write: Callable[[np.ndarray], None] | None = None

    def add_frame(self, frame: np.ndarray) -> None:
        """Corrupt and write a frame (height, width, 3) uint8 RGB, or drop it for a lower frame rate."""
        number, self.seen = self.seen, self.seen + 1
        due = number * float(self.rate) / self.source_rate
        if number and int(due) == int(due - float(self.rate) / self.source_rate):
            return
        frame = corrupt(self.steps, frame[None], self.seed, number)[0]
        if self.codec:  # 4:2:0 needs even sides
            frame = frame[: max(frame.shape[0] // 2 * 2, 1), : max(frame.shape[1] // 2 * 2, 1)]
        self.write = self.write or self.open(*frame.shape[:2])
        self.write(np.ascontiguousarray(frame))
        self.written += 1

    def open(self, height: int, width: int) -> Callable[[np.ndarray], None]:
        """Begin the file, and return the function that writes a frame of this size."""
        encoder, pixel_format, options = encode.CODECS[name := _codec_name(self.codec)]
        options = {**options, **(encode.QUICK[name] if self.quick else {})}
        crf = {"crf": f"{draw(self.codec, self.seed)[0]:.0f}"} if self.codec else {}
        return self.stack.enter_context(
            encode.video_writer(self.path, self.rate, height, width, encoder, pixel_format, {**options, **crf}))  # fmt: skip


def frame_rate(path: str) -> float:
    """Return the mean frames per second of a video. Raises MediaError if its container does not say."""
    try:
        with containers.decodable_path(path) as name, containers.open_video(name) as (_, stream, _):
            rate = float(containers.frame_rate(stream) or 0)
    except containers.NoDecoder:
        rate = 0.0
    if not rate > 0:
        raise MediaError("a video with an unknown frame rate, which cannot be encoded anew")
    return rate


def _codec_name(step: CorruptionStep | None) -> str:
    """Return the key of a step in `encode.CODECS`."""
    return "lossless" if step is None else "h264" if step.name == "video" else step.name
