"""Score a video window by window, in one pass over its frames: a sliding window for a clip detector, single frames otherwise."""

import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfdetect.data import confinement, worker_pool, worker_processes
from tfdetect.data.equalise import equalised_copy
from tfdetect.data.media import video
from tfdetect.data.media.frames import Media, evenly_spaced, frame_positions, resize_to, to_squares
from tfdetect.data.media.read import DECODER_ERRORS, read_video
from tfdetect.data.media.sniff import MediaError, failure_reason
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.errors import UserError
from tfdetect.evaluation.timeline import Timeline
from tfdetect.files import plural

if TYPE_CHECKING:
    from tfdetect.serving.predictor import Predictor

POINTS = 64  # of a timeline: two a second in half a minute
THUMBNAIL_SIDE = 160  # pixels
WORKER_BYTES = 2**27  # of the clips that a worker process may return; as few points as that takes
OnWindow = Callable[[tuple[int, ...], np.ndarray], None]  # (frames of the video, their clip (frames, size, size, 3) uint8)
Take = Callable[[int, Media], None]  # (number of a window, its clip)


def build(predictor: "Predictor", path: str | Path, total: int, points: int = POINTS, span: int | None = None,
          step: Callable[[], object] | None = None, on_window: OnWindow | None = None, shown: int = 0) -> Timeline:  # fmt: skip
    """Return the scores of a video over time; those of `predict`, were a file made of the frames of each window.

    `total` is `Media.total` of the video. There are about `points` windows, at least 1 frame apart. A clip detector's window has
    `span` frames of the video: by default as many as the detector takes, or as it takes in that time where the run has
    `--data.fps`; a video that is not longer is one window, the clip that `predict` sees. `step` is called for each decoded frame,
    and `on_window` with `shown` of the windows, evenly spaced, of several faces with the main one. Memory holds the frames of one
    batch of windows. Raises MediaError if the file is no video, or none of its windows can be scored; UserError if `points` or
    `span` is not positive.

    Where decoders are confined, one of them reads the windows, in whose memory all of them must fit.
    """
    if points < 1 or (span is not None and span < 1):
        raise UserError(f"A timeline needs at least 1 point and 1 frame in a window, got {points} and {span}.")
    reader = WindowReader(predictor.spec, predictor.is_frame_detector, total, points, span)
    scorer = _Scorer(predictor, on_window, shown)
    if worker_processes.is_confined():
        found = reader.read_elsewhere(path)
        scorer.restart()
        for number, media in found.clips:
            scorer.add(found.windows, number, media)
    else:
        found = reader.read(path, scorer.add, scorer.restart, step)
    return scorer.timeline(found)


@dataclass
class Windows:
    """What was read of a video: where its windows lie, when its frames are shown, and a small copy of each window's middle."""

    windows: list[tuple[int, ...]]
    times: np.ndarray
    thumbnails: dict[int, np.ndarray] = field(default_factory=dict)
    clips: list[tuple[int, Media]] = field(default_factory=list)


@dataclass(frozen=True)
class WindowReader:
    """Reads the windows of a video, also as a task for `worker_pool.map_unordered`."""

    spec: ClipSpec
    is_frame_detector: bool
    total: int
    points: int
    span: int | None = None

    def __call__(self, path: str) -> "Windows | MediaError":
        clips: list[tuple[int, Media]] = []
        try:
            found = self.read(path, lambda windows, number, media: clips.append((number, media)), clips.clear)
        except (MediaError, OSError, *DECODER_ERRORS) as error:
            return MediaError(failure_reason(error))
        return replace(found, clips=clips)

    def read_elsewhere(self, path: str | Path, seconds: float = 60.0) -> Windows:
        """Read them in a worker process, within `seconds` plus the allowance for the length. Raises MediaError."""
        clip_bytes = 3 * self.spec.max_squares * self.spec.size**2 // (self.spec.frames if self.is_frame_detector else 1)
        few = replace(self, points=max(1, min(self.points, WORKER_BYTES // clip_bytes)))
        [(_, found)] = worker_pool.map_unordered([str(path)], confinement.Beside(few), 1, seconds)
        if isinstance(found, worker_pool.WorkerFailure):
            raise MediaError(found.reason)
        if isinstance(found, MediaError):
            raise found
        return found

    def read(self, path: str | Path, take: Callable[[list[tuple[int, ...]], int, Media], None], restart: Callable[[], None],
             step: Callable[[], object] | None = None) -> Windows:  # fmt: skip
        """Call `take(windows, number, clip)` with each window all of whose frames are intact and, where faces are needed, that
        shows one; `restart()` at the start, and if reading begins anew. Raises MediaError."""
        with readable(self.spec, path) as (spec, name):
            times = np.asarray(video.frame_times(name, self.total, spec.limits))
            if self.is_frame_detector:
                windows = lay_windows(times.tolist(), 1, None, None, self.points)
            else:
                windows = lay_windows(times.tolist(), spec.frames, None if self.span else spec.fps, self.span, self.points)
            collector = _Collector(spec, Windows(windows, times), partial(take, windows), restart, step)
            collector.restart()
            for_each_frame(name, self.total, spec, collector.add, collector.restart)
            return collector.found


def lay_windows(times: Sequence[float], frames: int, fps: float | None, span: int | None, points: int) -> list[tuple[int, ...]]:
    """Return the frames of each window, `frames` numbers, for a video whose frames are shown at `times`, in seconds, ascending.

    Windows begin a fixed number of frames apart, as few as `points` windows allow; the last one ends with the video. With `fps`
    a window has as many frames per second, else it spreads evenly over `span` frames.
    """
    span = span or frames
    if fps:
        last = bisect.bisect_right(times, times[-1] - (frames - 1) / fps + 1e-3) - 1
    else:
        last = len(times) - span
    if last <= 0 or not frames:
        return [frame_positions(times, frames, fps)]
    stride = max(1, -(-last // max(1, points - 1)))
    starts = [*range(0, last, stride), last] if points > 1 else [last // 2]
    if fps:
        return [tuple(bisect.bisect_right(times, times[start] + k / fps + 1e-3) - 1 for k in range(frames)) for start in starts]
    return [tuple(start + k for k in evenly_spaced(span, frames)) for start in starts]


@contextmanager
def readable(spec: ClipSpec, path: str | Path) -> Iterator[tuple[ClipSpec, str]]:
    """Yield a spec and the file that it reads as `spec` reads `path`: an equalised copy, where training files were equalised."""
    if not spec.plan:
        yield spec, str(path)
        return
    with equalised_copy(path, spec.plan, spec.limits, spec.decoding) as copy:
        yield replace(spec, plan=None), str(copy)


def for_each_frame(path: str, total: int, spec: ClipSpec, add: Callable[[int, np.ndarray], None],
                   restart: Callable[[], None]) -> None:  # fmt: skip
    """Call `add(position, frame)` with each of the `total` intact frames of a video, in order: native (height, width, 3) uint8.

    They come from the reader that `predict` uses, which keeps one pixel of each. `restart` is called before it begins anew.
    """
    read_video(path, total, None, 1, spec.limits, add, decoding=spec.decoding, on_restart=restart)


@dataclass
class _Collector:
    """Collects the frames of each window, and passes full windows on."""

    spec: ClipSpec
    found: Windows
    take: Take
    on_restart: Callable[[], None]
    step: Callable[[], object] | None

    def restart(self) -> None:
        """Forget all frames."""
        self.on_restart()
        self.uses = Counter(position for window in self.found.windows for position in set(window))
        self.kept: dict[int, np.ndarray] = {}
        self.open = 0  # the first window that is not full
        self.found.thumbnails.clear()
        self.middles: dict[int, list[int]] = {}
        for number, window in enumerate(self.found.windows):
            self.middles.setdefault(window[len(window) // 2], []).append(number)

    def add(self, position: int, frame: np.ndarray) -> None:
        """Take the next frame, native (height, width, 3) uint8 RGB."""
        if self.step:
            self.step()
        if position in self.uses:
            self.kept[position] = frame if self.spec.faces else to_squares(frame, self.spec.size, self.spec.fit)
        for number in self.middles.get(position, ()):
            self.found.thumbnails[number] = shrink(frame, THUMBNAIL_SIDE)
        while self.open < len(self.found.windows) and self.found.windows[self.open][-1] <= position:
            self._close(self.open, frame.shape)
            self.open += 1

    def _close(self, number: int, shape: tuple[int, ...]) -> None:
        """Make the clip of a window all of whose frames have come, and forget frames that no later one needs."""
        window = self.found.windows[number]
        if any(position not in self.kept for position in window):
            return
        frames = [self.kept[position] for position in window]
        for position in set(window):
            self.uses[position] -= 1
            if not self.uses[position]:
                del self.kept[position]
        squares = np.stack(frames) if self.spec.faces else np.concatenate(frames)
        media = Media(squares, window, len(self.found.windows), shape[1], shape[0], "")
        with suppress(MediaError):  # no face
            self.take(number, self.spec.of_native(media) if self.spec.faces else media)


@dataclass
class _Scorer:
    """Scores full windows, several per call."""

    predictor: "Predictor"
    on_window: OnWindow | None
    shown: int

    def restart(self) -> None:
        """Forget all scores."""
        self.full: list[tuple[int, Media]] = []
        self.verdicts: dict[int, tuple[float, float]] = {}

    def add(self, windows: list[tuple[int, ...]], number: int, media: Media) -> None:
        """Take the clip of a window."""
        if self.on_window and self.shown and number in evenly_spaced(len(windows), min(self.shown, len(windows))):
            main_face = replace(media, frames=media.clips[0], faces=())
            self.on_window(windows[number], self.predictor.model_frames(main_face))
        self.full.append((number, media))
        if len(self.full) * len(windows[number]) >= self.predictor.batch:
            self._score()

    def _score(self) -> None:
        full, self.full = self.full, []
        found = self.predictor.to_verdicts([""] * len(full), [media for _, media in full]) if full else []
        for (number, _), verdict in zip(full, found, strict=True):
            self.verdicts[number] = (verdict.score or 0.0, verdict.probability or 0.0)

    def timeline(self, found: Windows) -> Timeline:
        """Score what is left, and return the points. Raises MediaError if there is none."""
        self._score()
        has_faces, windows = self.predictor.spec.faces, found.windows
        if not self.verdicts:
            raise MediaError("no timeline: " + ("no face in any window" if has_faces else "no window is intact"))
        numbers = sorted(self.verdicts)
        scores, probabilities = np.array([self.verdicts[number] for number in numbers]).T
        stride = windows[1][0] - windows[0][0] if len(windows) > 1 else 1
        missing = len(windows) - len(numbers)
        reason = "show no face" if has_faces else "are damaged"
        note = f"{missing} of {plural(len(windows), 'window')} left out: they {reason}" if missing else ""
        laid = np.array([windows[number] for number in numbers])
        line = Timeline(laid, scores, probabilities, found.times, stride, self.predictor.threshold, note=note)
        return replace(line, pictures={at: found.thumbnails[numbers[at]] for at in line.peaks})


def shrink(frame: np.ndarray, side: int) -> np.ndarray:
    """Return a frame whose longer side has at most `side` pixels, and both at least 1."""
    height, width = frame.shape[:2]
    scale = min(1.0, side / max(height, width))
    return resize_to(frame, max(1, round(scale * height)), max(1, round(scale * width)))
