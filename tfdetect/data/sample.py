"""The embedded data set: scenes drawn by code, seen through a simulated camera, written as real JPEG and H.264 files.

Each group is one scene, written twice: unchanged (label 0, source ``camera``) and with one of three manipulations (label 1), the
source of the fake:

- ``swap``: a patch of another scene, taken with another camera, is blended in with a soft seam. Its colours are matched to the
  scene, its noise is not: it has half the grain, and the column stripes of a sensor with four readout channels;
- ``upsample``: a region is down- and upsampled by four, as in a generator, which leaves the grid of transposed convolutions;
- ``flicker``: the brightness and position of a region change from frame to frame. In the real twin they are drawn from the same
  distribution but stay fixed, so that any single frame is equally likely to be real or fake.

Flicker precedes lens and sensor; swap and upsample follow them. Exposure and white balance are automatic: every frame has the
mean colour of its scene unless it is overexposed. Both twins pass through the same encoder with the same settings, and each is
encoded exactly once. H.264 is intra-only with a fixed quantiser, because the size of predicted frames would reveal flicker. The
strengths are balanced so that the size of a file does not reveal its label.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from tfdetect.data.media import encode
from tfdetect.data.worker_pool import map_unordered
from tfdetect.errors import UserError
from tfdetect.files import atomic_write

VIDEO_SOURCES = ("flicker", "swap", "flicker", "upsample")  # flicker needs twice as many examples
IMAGE_SOURCES = ("swap", "upsample")  # flicker needs several frames
COLUMNS = ("path", "label", "split", "group", "source", "text", "category")
TINTS = ("reddish scene", "greenish scene", "bluish scene")  # what the images show, for detectors that read texts
FPS = 16
VERSION = 1  # of the drawing code; a folder begun by another version is not completed with files of this one

# --- strengths: a small network learns all three manipulations within minutes, while file sizes reveal none -----------

GRAIN = (3.0, 5.0)  # standard deviation of camera noise at mid-grey, in grey levels; with a wider range, sizes revealed upsample
QP, JPEG_QUALITY = 20, 92  # here the grain that a fake loses costs as many bytes as the pattern that it gains
X264 = {"qp": str(QP), "g": "1", "preset": "medium"}
SWAP_GRAIN = 0.5  # grain of the patch relative to the scene's; with less, swapped JPEGs were smaller than real ones
STRIPES = 15.0  # grey levels; with 20 the stripes are learned so early that flicker is learned late
GRID = 22.0  # grey levels where rows and columns of the grid cross; with 16, upsampled videos were smaller than real ones
PERIOD = 4  # pixels of stripes and grid: the pattern + - - + is a single DCT coefficient, so it is strong yet cheap to encode
# Standard deviations of flicker: of the region's log gain, and of its position in 64ths of the width. With 0.8 and 2 it was
# learned from some initial weights only.
GAIN, POSITION = 1.0, 3.0


@dataclass(frozen=True)
class Sample:
    """Settings of the embedded data set; equal settings give equal files."""

    kind: Literal["image", "video"] = "video"
    """JPEG images or H.264 videos."""
    count: int = 400
    """Number of groups; each has one real and one fake file."""
    seed: int = 0
    """Random seed of the scenes."""
    size: int = 64
    """Width and height in pixels (a multiple of 4, at least 32)."""
    frames: int = 16
    """Frames per video."""
    sources: tuple[str, ...] = ()
    """Manipulations, used in turn; by default swap and upsample, with flicker in every other video."""

    def __post_init__(self) -> None:
        if self.kind not in ("image", "video"):
            raise UserError(f"kind is {self.kind!r}; it must be image or video")
        allowed = VIDEO_SOURCES if self.kind == "video" else IMAGE_SOURCES
        if unknown := set(self.sources) - set(allowed):
            raise UserError(f"unknown sources {sorted(unknown)} for {self.kind}s; choose from {', '.join(sorted(set(allowed)))}")
        if self.count < 1 or self.frames < 2 or self.seed < 0:
            raise UserError(
                f"count must be at least 1, frames at least 2 and seed at least 0, "
                f"but they are {self.count}, {self.frames} and {self.seed}"
            )
        if self.size < 32 or self.size % PERIOD:
            raise UserError(f"size is {self.size}; it must be a multiple of {PERIOD} and at least 32")
        object.__setattr__(self, "sources", tuple(self.sources) or allowed)


# --- scene -----------------------------------------------------------------------------------------------------------


def draw_texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Draw a cloud-like colour texture, (size, size, 3) float32 around 0, in grey levels."""
    layers = np.zeros((size, size, 3), np.float32)
    for octave in range(2, 6):
        cells = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        cells = 0.6 * cells.mean(axis=2, keepdims=True) + 0.4 * cells  # similar hues rather than confetti
        layers += cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC) * contrast / (octave - 1)
    return layers


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the background that the camera pans over: shapes on a texture, (2 * size, 2 * size, 3) float32 in grey levels."""
    side = 2 * size
    image = rng.uniform(70, 180, 3).astype(np.float32) + draw_texture(rng, side, rng.uniform(8, 25))
    for _ in range(rng.integers(6, 14)):
        colour = tuple(float(c) for c in rng.uniform(50, 200, 3))
        centre, axes = rng.integers(0, side, 2), rng.integers(side // 24, side // 6, 2)
        box = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, axes)), float(rng.uniform(0, 180))))
        if rng.random() < 0.5:
            cv2.fillPoly(image, [box.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            cv2.ellipse(image, tuple(map(int, centre)), tuple(map(int, axes // 2)), 0, 0, 360, colour, -1, cv2.LINE_AA)
    return image


@dataclass(frozen=True)
class Scene:
    """The scene of one group: background, camera motion, a textured round region and camera properties; lengths in pixels."""

    background: np.ndarray  # (2 * size, 2 * size, 3) float32
    region: np.ndarray  # texture of the region, (size, size, 3) float32
    start: np.ndarray  # (x, y) of the first frame in the background
    pan: np.ndarray  # (x, y) motion per frame
    centre: np.ndarray  # (x, y) of the region
    radius: float  # of the region
    blur: float  # standard deviation of the lens blur
    grain: float  # standard deviation of the noise at mid-grey
    colour: np.ndarray  # (3,) mean colour of each frame

    @classmethod
    def draw(cls, rng: np.random.Generator, size: int) -> "Scene":
        """Draw a random scene for frames of size x size pixels."""
        unit = size / 64
        return cls(
            background=draw_background(rng, size),
            region=rng.uniform(100, 150, 3).astype(np.float32) + draw_texture(rng, size, rng.uniform(12, 30)),
            start=rng.uniform(0.2, 0.8, 2) * size,
            pan=rng.normal(0, 0.3 * unit, 2),
            centre=rng.uniform(29, 35, 2) * unit,
            radius=rng.uniform(14, 24) * unit,
            blur=rng.uniform(0.5, 0.8),
            grain=rng.uniform(*GRAIN),
            colour=rng.uniform(90, 130, 3).astype(np.float32),
        )

    def mask(self, size: int, shift: np.ndarray, seam: float) -> np.ndarray:
        """Return the region as a soft disc (size, size, 1) in 0..1; ``seam`` is the width of its edge in pixels."""
        rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
        x, y = self.centre + shift
        distance = np.hypot(columns - x, rows - y)
        return np.clip((self.radius - distance) / seam + 0.5, 0, 1)[..., None].astype(np.float32)

    def render(self, size: int, time: int, gain: float, shift: np.ndarray) -> np.ndarray:
        """Render frame ``time`` before lens and sensor, (size, size, 3) float32 in grey levels with mean ``colour``.

        The region is brightened by the log ``gain`` and moved by ``shift`` pixels; exposure adapts to each frame.
        """
        transform = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
        transform[:, 2] = -(self.start + time * self.pan)
        view = cv2.warpAffine(self.background, transform, (size, size), borderMode=cv2.BORDER_REFLECT)
        transform[:, 2] = shift
        region = cv2.warpAffine(self.region, transform, (size, size), borderMode=cv2.BORDER_REFLECT)
        mask = self.mask(size, shift, 2.0)
        frame = view * (1 - mask) + region * np.float32(np.exp(gain)) * mask
        return frame * (self.colour / frame.mean(axis=(0, 1)))

    def capture(self, rng: np.random.Generator, frame: np.ndarray, grain: float) -> np.ndarray:
        """Apply lens blur, then sensor noise that grows with brightness; ``grain`` is its standard deviation at mid-grey."""
        blurred = cv2.GaussianBlur(frame, (0, 0), self.blur)
        deviation = grain * np.sqrt(np.clip(blurred, 8, 255) / 128)
        return blurred + rng.standard_normal(blurred.shape, np.float32) * deviation


# --- manipulations: a frame is (size, size, 3) float32 in grey levels ------------------------------------------------


def apply_swap(rng: np.random.Generator, frame: np.ndarray, scene: Scene, donor: Scene, time: int) -> np.ndarray:
    """Blend the donor scene into the region: matched colours, a soft seam, the noise of another sensor."""
    size, no_shift = len(frame), np.zeros(2)
    patch = donor.capture(rng, donor.render(size, time, 0.0, no_shift), SWAP_GRAIN * scene.grain)
    patch += STRIPES * alternating_wave(size)[None, :, None]
    mask = scene.mask(size, no_shift, 5.0 * size / 64)
    patch += ((frame - patch) * mask).mean(axis=(0, 1)) / mask.mean()  # colour transfer, as in face swapping
    return frame * (1 - mask) + patch * mask


def apply_upsampling(frame: np.ndarray, scene: Scene) -> np.ndarray:
    """Down- and upsample the region by four, as two transposed convolutions do: smooth, with a grid of four pixels."""
    size = len(frame)
    small = cv2.resize(frame, (size // PERIOD, size // PERIOD), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    large += GRID / 2 * (alternating_wave(size)[:, None, None] + alternating_wave(size)[None, :, None])
    mask = scene.mask(size, np.zeros(2), 3.0)
    return frame * (1 - mask) + large * mask


def alternating_wave(size: int) -> np.ndarray:
    """Return the repeated pattern +1 -1 -1 +1, (size,) float32."""
    return np.resize(np.array([1, -1, -1, 1], np.float32), size)


def draw_motion(rng: np.random.Generator, spec: Sample, fixed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draw log gain (frames,) and shift in pixels (frames, 2) of the region: one draw per frame, or ``fixed`` for all."""
    frames = spec.frames if spec.kind == "video" else 1
    gain = GAIN * np.clip(rng.standard_normal(frames), -2.0, 1.6)
    shift = rng.normal(0, POSITION * spec.size / 64, (frames, 2))
    return (np.repeat(gain[:1], frames), np.repeat(shift[:1], frames, axis=0)) if fixed else (gain, shift)


def render_clip(spec: Sample, group: int, source: str) -> np.ndarray:
    """Render one twin, (frames, size, size, 3) uint8 RGB; both twins share their random draws."""
    rng = np.random.default_rng([spec.seed, group])
    scene, donor = Scene.draw(rng, spec.size), Scene.draw(rng, spec.size)
    gain, shift = draw_motion(rng, spec, fixed=source != "flicker")
    clip = [
        scene.capture(rng, scene.render(spec.size, time, gain[time], shift[time]), scene.grain)
        for time in range(len(gain))
    ]
    if source == "swap":
        clip = [apply_swap(rng, frame, scene, donor, time) for time, frame in enumerate(clip)]
    elif source == "upsample":
        clip = [apply_upsampling(frame, scene) for frame in clip]
    return np.clip(np.rint(np.stack(clip)), 0, 255).astype(np.uint8)


# --- files -----------------------------------------------------------------------------------------------------------


def encode_jpeg(frame: np.ndarray) -> bytes:
    """Encode (height, width, 3) uint8 RGB as JPEG at the fixed quality."""
    return encode.encode_jpeg(frame, JPEG_QUALITY)


def encode_mp4(frames: np.ndarray) -> bytes:
    """Encode (frames, height, width, 3) uint8 RGB as intra-only H.264 at the fixed quantiser."""
    return encode.encode_h264(frames, FPS, X264)


def manifest_rows(spec: Sample) -> list[dict[str, str]]:
    """Return the manifest: the real and the fake file of each group. `write` fills the column category."""
    suffix = "mp4" if spec.kind == "video" else "jpg"
    rows = []
    for group in range(spec.count):
        for label, source in enumerate(("camera", spec.sources[group % len(spec.sources)])):
            path = f"{('real', 'fake')[label]}/{group:05d}.{suffix}"
            values = (path, str(label), "", f"scene-{group:05d}", source, "", "")
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def dominant_tint(spec: Sample, group: int) -> str:
    """Return the strongest mean colour of a scene, which its twins share.

    The scene is drawn at the smallest size, which is fast and does not change the colour.
    """
    scene = Scene.draw(np.random.default_rng([spec.seed, group]), 32)
    return TINTS[int(scene.colour.argmax())]


def write_file(spec: Sample, folder: Path, row: dict[str, str]) -> None:
    """Render and write the file of one manifest row."""
    cv2.setNumThreads(1)  # there is one process per core already
    frames = render_clip(spec, int(row["group"].removeprefix("scene-")), row["source"])
    with atomic_write(folder / row["path"]) as temporary:
        temporary.write_bytes(encode_mp4(frames) if spec.kind == "video" else encode_jpeg(frames[0]))


def claim_folder(spec: Sample, folder: Path) -> None:
    """Write sample.json into a new folder, or accept a folder with the same settings. Raises UserError for any other."""
    expected = json.dumps({"version": VERSION, **asdict(spec)}, indent=1) + "\n"
    path = folder / "sample.json"
    existing = path.read_text() if path.exists() else ""
    foreign = not existing and folder.exists() and any(not file.name.startswith(".part-") for file in folder.iterdir())
    if foreign or existing not in ("", expected):
        content = f"another sample, {' '.join(existing.split())}," if existing else "files that are not a sample"
        raise UserError(f"{folder} holds {content} and is left unchanged: choose another --out, or delete the folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not existing:  # before everything else, so that an interrupted write is recognised
        with atomic_write(path) as temporary:
            temporary.write_text(expected)
    for name in ("real", "fake"):
        (folder / name).mkdir(exist_ok=True)


def write(
    spec: Sample,
    folder: Path,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> Path:
    """Write the missing files of the sample and return the path of its manifest, which exists only once all are written.

    The files do not depend on the number of ``workers`` (processes; default: one per core). ``progress`` is called once per
    file, existing ones included. Existing files are complete and are kept, so an interrupted write can be resumed.
    Raises UserError if the folder holds anything else.
    """
    claim_folder(spec, folder)
    rows = manifest_rows(spec)
    progress = progress or (lambda: None)
    missing = [row for row in rows if not (folder / row["path"]).exists()]
    for _ in range(len(rows) - len(missing)):
        progress()
    for row, failure in map_unordered(missing, partial(write_file, spec, folder), workers):
        if failure:
            raise UserError(f"{folder / row['path']} could not be written: {failure.reason}; repeat the command.")
        progress()
    manifest = folder / "manifest.csv"
    if missing or not manifest.exists() or not manifest.read_text().startswith(",".join(COLUMNS)):
        tints = [dominant_tint(spec, group) for group in range(spec.count)]
        with atomic_write(manifest) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "category": tints[number // 2]} for number, row in enumerate(rows))
    return manifest
