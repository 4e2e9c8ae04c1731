"""A video of the heat-maps over the frames of a video, which browsers play: H.264, 4:2:0, its index in front."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from tfdetect.data.media.encode import video_writer
from tfdetect.data.media.frames import BLOCK, Fit, Media, crop_positions, padded_shape, resize_to
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.evaluation.timeline import Timeline
from tfdetect.files import atomic_write
from tfdetect.pages import explanation
from tfdetect.workflow.timeline import for_each_frame, readable, shrink

MAX_SIDE = 640  # pixels; larger frames are reduced
MIN_SIDE = 256  # smaller ones are enlarged by a whole number, so that a person sees them
STRIP = 40  # pixels, at most, of the curve of the scores below the picture
FAST_START = {"movflags": "+faststart"}  # the index in front
X264 = {"preset": "veryfast", "crf": "20"}


def write(path: Path, file: str | Path, spec: ClipSpec, line: Timeline, maps: Mapping[tuple[int, ...], np.ndarray],
          method: str, step: Callable[[], object] | None = None) -> None:  # fmt: skip
    """Write the frames of a video with the heat-maps over them, and the probability over time below.

    `maps` are those of some windows of the timeline, by their frames, (squares, size, size) each; a frame between two of them
    gets a mixture. Frames of a run on faces are shown as the detector sees them, cropped. `step` is called for each frame. Raises
    MediaError if the video cannot be read.
    """
    seconds = float(line.times[-1])
    rate = Fraction((len(line.times) - 1) / seconds if seconds > 0 else 25).limit_denominator(1001)
    with readable(spec, file) as (plain, name), atomic_write(path) as temporary:
        painter = _Painter(temporary, rate, plain, line, maps, method, step)
        try:
            for_each_frame(name, len(line.times), plain, painter.add, painter.restart)
            painter.close()
        finally:
            painter.abandon()


class _Painter:
    """Encodes each frame as it is decoded."""

    def __init__(self, path: Path, rate: Fraction, spec: ClipSpec, line: Timeline,
                 maps: Mapping[tuple[int, ...], np.ndarray], method: str, step: Callable[[], object] | None) -> None:  # fmt: skip
        self.path, self.rate, self.spec, self.line, self.method, self.step = path, rate, spec, line, method, step
        windows = sorted(maps)
        self.centres = np.array([(line.times[window[0]] + line.times[window[-1]]) / 2 for window in windows])
        self.maps = np.stack([maps[window] for window in windows])
        self.largest = float(np.abs(self.maps).max()) or 1.0
        self.writer: AbstractContextManager[Callable[[np.ndarray], None]] | None = None
        self.crop: np.ndarray | None = None

    def restart(self) -> None:
        """Begin the video anew."""
        self.abandon()

    def abandon(self) -> None:
        """End the encoder, if there is one, whatever it wrote."""
        if self.writer:
            self.close()

    def close(self) -> None:
        """Finish the video."""
        if self.writer:
            writer, self.writer = self.writer, None
            writer.__exit__(None, None, None)

    def add(self, position: int, frame: np.ndarray) -> None:
        """Paint and encode the next frame, native (height, width, 3) uint8 RGB."""
        if self.step:
            self.step()
        heat = self._map_at(float(self.line.times[min(position, len(self.line.times) - 1)]))
        if self.spec.faces:
            frame, heat = self._face(frame), heat[0]
        else:
            heat = on_frame(heat, frame.shape[0], frame.shape[1], self.spec.fit)
        picture = to_even(frame)
        heat = resize_map(heat, *picture.shape[:2])
        painted = explanation.overlay(picture[None], heat[None], self.method, self.largest)[0][0]
        whole = np.concatenate([np.round(255 * painted).astype(np.uint8), self._strip(picture.shape[1], position)])
        if not self.writer:
            height, width = whole.shape[:2]
            self.writer = video_writer(str(self.path), self.rate, height, width, "libx264", "yuv420p", X264, FAST_START)
            self.encode, self.shape = self.writer.__enter__(), whole.shape[:2]
        self.encode(whole if whole.shape[:2] == self.shape else resize_to(whole, *self.shape))

    def _map_at(self, seconds: float) -> np.ndarray:
        """Return the mixture of the maps before and after that time."""
        after = int(np.searchsorted(self.centres, seconds))
        if after in (0, len(self.centres)):
            return self.maps[min(after, len(self.centres) - 1)]
        share = (seconds - self.centres[after - 1]) / max(1e-9, self.centres[after] - self.centres[after - 1])
        return (1 - share) * self.maps[after - 1] + share * self.maps[after]

    def _face(self, frame: np.ndarray) -> np.ndarray:
        """Return the crop of the face, or the last one if there is none in this frame."""
        media = Media(frame[None], (0,), 1, frame.shape[1], frame.shape[0], "")
        with suppress(MediaError):
            self.crop = self.spec.of_native(media).frames[0]
        return np.zeros((self.spec.size, self.spec.size, 3), np.uint8) if self.crop is None else self.crop

    def _strip(self, width: int, position: int) -> np.ndarray:
        """Return the curve of the probabilities, with the threshold and a line at the present frame, (height, width, 3) uint8."""
        import cv2

        strip = np.full((STRIP, width, 3), 24, np.uint8)
        scale = (width - 1) / max(1e-9, float(self.line.times[-1]))
        y = lambda value: round((STRIP - 5) * (1 - float(value))) + 2  # noqa: E731
        points = [(round(at * scale), y(value)) for at, value in zip(self.line.centres, self.line.probabilities, strict=True)]
        cv2.line(strip, (0, y(self.line.threshold)), (width - 1, y(self.line.threshold)), (213, 94, 0))
        cv2.polylines(strip, [np.array(points, np.int32)], False, (255, 255, 255), 1, cv2.LINE_AA)
        now = round(float(self.line.times[min(position, len(self.line.times) - 1)]) * scale)
        cv2.line(strip, (now, 0), (now, STRIP - 1), (120, 190, 255))
        return strip


def on_frame(heat: np.ndarray, height: int, width: int, fit: Fit) -> np.ndarray:
    """Return a heat-map of a frame's squares (squares, size, size) as one of the frame, (height, width); 0 where none looked.

    The inverse of `frames.to_squares`, but for what was extended by reflection.
    """
    size = heat.shape[-1]
    if fit.mode == "squeeze":
        return resize_map(heat[0], height, width)
    out = np.zeros((height, width), np.float32)
    if fit.mode == "pad":
        inner = padded_shape(height, width, size)
        top, left = ((size - side) // 2 for side in inner)
        return resize_map(heat[0][top : top + inner[0], left : left + inner[1]], height, width)
    if fit.mode == "shortest_side":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        out[top : top + side, left : left + side] = resize_map(heat[0], side, side)
        return out
    above, before = (max(size - side, 0) // 2 // BLOCK * BLOCK for side in (height, width))
    count = np.zeros((height, width), np.float32)
    for square, (top, left) in zip(heat, crop_positions(height, width, size, fit.crops), strict=False):
        part = square[above : above + height, before : before + width]
        out[top : top + part.shape[0], left : left + part.shape[1]] += part
        count[top : top + part.shape[0], left : left + part.shape[1]] += 1
    return out / np.maximum(count, 1)


def resize_map(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a heat-map resized bilinearly."""
    import cv2

    return cv2.resize(np.asarray(heat, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)


def to_even(frame: np.ndarray) -> np.ndarray:
    """Return a frame between MIN_SIDE and MAX_SIDE pixels, with even sides, as H.264 with 4:2:0 needs."""
    frame = shrink(frame, MAX_SIDE)
    factor = max(1, -(-MIN_SIDE // max(frame.shape[:2])))
    height, width = (factor * side + factor * side % 2 for side in frame.shape[:2])
    return frame if (height, width) == frame.shape[:2] else resize_to(frame, height, width)
