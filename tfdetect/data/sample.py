"""The embedded data set: scenes drawn by code, seen through a plausible camera, written as real JPEG and H.264 files.

Every *group* is one scene. It is written twice: as it is (label 0, source ``camera``) and with one of three
manipulations (label 1), which is the fake's source:

- ``apply_swap``: a patch of another scene, taken with another camera, blended in with a soft seam. Its colours are fitted to
  the scene's, its noise is not: half the grain, and the column stripes of a sensor that is read out by four channels;
- ``apply_upsampling``: a region that went through a generator-like down- and up-sampling by four, which leaves the grid of its
  transposed convolutions;
- ``flicker``: a region whose brightness and place change from frame to frame. The real twin's region has gain and
  place drawn from the same distribution, but held: any single frame is as likely real as fake.

Flicker happens before lens and sensor, swap and upsample after. Exposure and white balance are automatic: each frame
has its scene's mean colour, as far as nothing is overexposed. Both twins leave through the same encoder with the same
settings, each encoded exactly once; H.264 is intra-only at a fixed quantiser, since predicted frames would give flicker
away by their size. The strengths are balanced so that a file's size does not tell its label.
"""

import csv
import io
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from tfdetect.errors import UserError
from tfdetect.files import atomic_write
from tfdetect.machine import available_cores

VIDEO_SOURCES = ("flicker", "swap", "flicker", "upsample")  # flicker needs twice the examples
IMAGE_SOURCES = ("swap", "upsample")  # flicker needs time
COLUMNS = ("path", "label", "split", "group", "source", "text", "category")
TINTS = ("reddish scene", "greenish scene", "bluish scene")  # what the pictures show, for detectors that read texts
FPS = 16
VERSION = 1  # of what is drawn: a folder begun by another version is not completed with this one's files

# --- strengths: enough for a small network to learn all three in minutes, while the bytes tell none ------------------

GRAIN = (3.0, 5.0)  # deviation of a camera's noise at mid-grey, in grey levels; a wider range let sizes tell upsample
QP, JPEG_QUALITY = 20, 92  # at these, the bytes of the grain that a fake loses are those of the pattern it gains
SWAP_GRAIN = 0.5  # the patch's grain as a share of the scene's; with less, a swapped JPEG was the smaller one
STRIPES = 15.0  # grey levels; with 20 they are learnt so soon that flicker comes late
GRID = 22.0  # grey levels where its rows and columns meet; with 16 upsampled videos were the smaller ones
PERIOD = 4  # pixels of stripes and grid: + - - + is a single DCT coefficient, hence strong and yet cheap to encode
# Deviations of flicker: of the region's log gain, and of its place in 64ths of the width. With 0.8 and 2 it was
# learnt with some initial weights only.
GAIN, PLACE = 1.0, 3.0


@dataclass(frozen=True)
class Sample:
    """What the embedded data set is made of; equal settings give equal files."""

    kind: Literal["image", "video"] = "video"
    """JPEG images or H.264 videos."""
    count: int = 400
    """Number of groups: each is one real and one fake file."""
    seed: int = 0
    """Another seed gives other scenes."""
    size: int = 64
    """Width and height in pixels (a multiple of 4, at least 32)."""
    frames: int = 16
    """Frames of a video."""
    sources: tuple[str, ...] = ()
    """Manipulations, in turn; empty: swap and upsample and, for every other video, flicker."""

    def __post_init__(self) -> None:
        if self.kind not in ("image", "video"):
            raise UserError(f"kind {self.kind!r} is unknown; there are image and video")
        allowed = VIDEO_SOURCES if self.kind == "video" else IMAGE_SOURCES
        if unknown := set(self.sources) - set(allowed):
            raise UserError(
                f"sources {sorted(unknown)} are unknown for {self.kind}s; there are {', '.join(sorted(set(allowed)))}"
            )
        if self.count < 1 or self.frames < 2 or self.seed < 0:
            raise UserError(
                f"count must be at least 1, frames at least 2 and seed at least 0, "
                f"but they are {self.count}, {self.frames} and {self.seed}"
            )
        if self.size < 32 or self.size % PERIOD:
            raise UserError(f"size {self.size} must be a multiple of {PERIOD} and at least 32")
        object.__setattr__(self, "sources", tuple(self.sources) or allowed)


# --- scene -----------------------------------------------------------------------------------------------------------


def draw_texture(rng: np.random.Generator, size: int, contrast: float) -> np.ndarray:
    """Cloud-like colour texture, (size, size, 3) float32 around 0, in grey levels."""
    layers = np.zeros((size, size, 3), np.float32)
    for octave in range(2, 6):
        cells = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
        cells = 0.6 * cells.mean(axis=2, keepdims=True) + 0.4 * cells  # neighbouring hues, not confetti
        layers += cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC) * contrast / (octave - 1)
    return layers


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """A still background with shapes on it, (2 * size, 2 * size, 3) float32 in grey levels; the camera pans over it."""
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
    """One group: background, pan, a textured round region, and the camera that sees them; lengths are in pixels."""

    background: np.ndarray
    region: np.ndarray
    start: np.ndarray
    pan: np.ndarray
    centre: np.ndarray
    radius: float
    blur: float
    grain: float
    colour: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, size: int) -> "Scene":
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
        """Soft disc (size, size, 1) in 0..1; ``seam`` is the width of its edge in pixels."""
        rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
        x, y = self.centre + shift
        distance = np.hypot(columns - x, rows - y)
        return np.clip((self.radius - distance) / seam + 0.5, 0, 1)[..., None].astype(np.float32)

    def light(self, size: int, time: int, gain: float, shift: np.ndarray) -> np.ndarray:
        """What reaches the sensor at frame ``time``, (size, size, 3) float32 in grey levels of mean ``colour``.

        The region has its log ``gain`` and its ``shift`` in pixels; the exposure is set for each frame.
        """
        move = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
        move[:, 2] = -(self.start + time * self.pan)
        view = cv2.warpAffine(self.background, move, (size, size), borderMode=cv2.BORDER_REFLECT)
        move[:, 2] = shift
        region = cv2.warpAffine(self.region, move, (size, size), borderMode=cv2.BORDER_REFLECT)
        mask = self.mask(size, shift, 2.0)
        light = view * (1 - mask) + region * np.float32(np.exp(gain)) * mask
        return light * (self.colour / light.mean(axis=(0, 1)))

    def shoot(self, rng: np.random.Generator, light: np.ndarray, grain: float) -> np.ndarray:
        """Lens blur, then sensor noise that grows with brightness; ``grain`` is its deviation at mid-grey."""
        seen = cv2.GaussianBlur(light, (0, 0), self.blur)
        deviation = grain * np.sqrt(np.clip(seen, 8, 255) / 128)
        return seen + rng.standard_normal(seen.shape, np.float32) * deviation


# --- manipulations: a frame is (size, size, 3) float32 in grey levels ------------------------------------------------


def apply_swap(rng: np.random.Generator, frame: np.ndarray, scene: Scene, donor: Scene, time: int) -> np.ndarray:
    """Blend the donor's picture into the scene's region: colours fitted, a soft seam, another sensor's noise."""
    size, still = len(frame), np.zeros(2)
    patch = donor.shoot(rng, donor.light(size, time, 0.0, still), SWAP_GRAIN * scene.grain)
    patch += STRIPES * alternating_wave(size)[None, :, None]
    mask = scene.mask(size, still, 5.0 * size / 64)
    patch += ((frame - patch) * mask).mean(axis=(0, 1)) / mask.mean()  # colour transfer, as face swappers do
    return frame * (1 - mask) + patch * mask


def apply_upsampling(frame: np.ndarray, scene: Scene) -> np.ndarray:
    """Quarter the region and bring it back as two transposed convolutions do: smooth, with a grid of four pixels."""
    size = len(frame)
    small = cv2.resize(frame, (size // PERIOD, size // PERIOD), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    large += GRID / 2 * (alternating_wave(size)[:, None, None] + alternating_wave(size)[None, :, None])
    mask = scene.mask(size, np.zeros(2), 3.0)
    return frame * (1 - mask) + large * mask


def alternating_wave(size: int) -> np.ndarray:
    """+1 -1 -1 +1 and so on, (size,) float32."""
    return np.resize(np.array([1, -1, -1, 1], np.float32), size)


def draw_motion(rng: np.random.Generator, spec: Sample, held: bool) -> tuple[np.ndarray, np.ndarray]:
    """Log gain (frames,) and shift in pixels (frames, 2) of the region: a new draw for each frame, or one held."""
    frames = spec.frames if spec.kind == "video" else 1
    gain = GAIN * np.clip(rng.standard_normal(frames), -2.0, 1.6)
    shift = rng.normal(0, PLACE * spec.size / 64, (frames, 2))
    return (np.repeat(gain[:1], frames), np.repeat(shift[:1], frames, axis=0)) if held else (gain, shift)


def render_clip(spec: Sample, group: int, source: str) -> np.ndarray:
    """One twin, (frames, size, size, 3) uint8 RGB: light, lens and sensor, manipulation; the twins share all draws."""
    rng = np.random.default_rng([spec.seed, group])
    scene, donor = Scene.draw(rng, spec.size), Scene.draw(rng, spec.size)
    gain, shift = draw_motion(rng, spec, held=source != "flicker")
    clip = [
        scene.shoot(rng, scene.light(spec.size, time, gain[time], shift[time]), scene.grain)
        for time in range(len(gain))
    ]
    if source == "swap":
        clip = [apply_swap(rng, frame, scene, donor, time) for time, frame in enumerate(clip)]
    elif source == "upsample":
        clip = [apply_upsampling(frame, scene) for frame in clip]
    return np.clip(np.rint(np.stack(clip)), 0, 255).astype(np.uint8)


# --- files -----------------------------------------------------------------------------------------------------------


def encode_jpeg(frame: np.ndarray) -> bytes:
    """(height, width, 3) uint8 RGB -> JPEG at the one fixed quality."""
    return cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def encode_mp4(frames: np.ndarray) -> bytes:
    """(frames, height, width, 3) uint8 RGB -> intra-only H.264 at the one fixed quantiser."""
    import av  # here, since whoever only asks for --help needs no FFmpeg

    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"qp": str(QP), "g": "1", "preset": "medium", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()


def manifest_rows(spec: Sample) -> list[dict[str, str]]:
    """The manifest: for each group its real and its fake file. `write` adds what they show."""
    suffix = "mp4" if spec.kind == "video" else "jpg"
    table = []
    for group in range(spec.count):
        for label, source in enumerate(("camera", spec.sources[group % len(spec.sources)])):
            path = f"{('real', 'fake')[label]}/{group:05d}.{suffix}"
            values = (path, str(label), "", f"scene-{group:05d}", source, "", "")
            table.append(dict(zip(COLUMNS, values, strict=True)))
    return table


def dominant_tint(spec: Sample, group: int) -> str:
    """What both twins of a scene show: the strongest of its mean colours. Drawn at the least size, which is quick and changes
    none of them."""
    scene = Scene.draw(np.random.default_rng([spec.seed, group]), 32)
    return TINTS[int(scene.colour.argmax())]


def write_file(spec: Sample, folder: Path, row: dict[str, str]) -> None:
    """Render and write one file of the manifest."""
    cv2.setNumThreads(1)  # one process a core already
    frames = render_clip(spec, int(row["group"].removeprefix("scene-")), row["source"])
    with atomic_write(folder / row["path"]) as part:
        part.write_bytes(encode_mp4(frames) if spec.kind == "video" else encode_jpeg(frames[0]))


def claim_folder(spec: Sample, folder: Path) -> None:
    """Write sample.json into a new folder; accept one that holds the same; refuse any other."""
    wanted = json.dumps({"version": VERSION, **asdict(spec)}, indent=1) + "\n"
    note = folder / "sample.json"
    found = note.read_text() if note.exists() else ""
    other = not found and folder.exists() and any(not path.name.startswith(".part-") for path in folder.iterdir())
    if other or found not in ("", wanted):
        held = f"another sample, {' '.join(found.split())}," if found else "files that are no sample"
        raise UserError(f"{folder} holds {held} and is left as it is: choose another --out, or delete the folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not found:  # before all else, so that an interrupted write is known again
        with atomic_write(note) as part:
            part.write_text(wanted)
    for name in ("real", "fake"):
        (folder / name).mkdir(exist_ok=True)


def write(
    spec: Sample,
    folder: Path,
    workers: int | None = None,
    progress: Callable[[], None] | None = None,
) -> Path:
    """Write what is missing of the sample and return its manifest, whose presence says that the sample is complete.

    ``workers`` processes (default: one for each core) make the same files as one; ``progress`` is called once for each
    file that is there. Files that exist are whole and are kept, so an interrupted write can go on.
    """
    claim_folder(spec, folder)
    table = manifest_rows(spec)
    progress = progress or (lambda: None)
    missing = [row for row in table if not (folder / row["path"]).exists()]
    for _ in range(len(table) - len(missing)):
        progress()
    if missing:
        workers = min(workers or available_cores(), len(missing))
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            jobs = [pool.submit(write_file, spec, folder, row) for row in missing]
            try:
                for job in jobs:
                    job.result()
                    progress()
            finally:
                pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, do not render the rest first
    manifest = folder / "manifest.csv"
    if missing or not manifest.exists() or not manifest.read_text().startswith(",".join(COLUMNS)):
        tints = [dominant_tint(spec, group) for group in range(spec.count)]
        with atomic_write(manifest) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "category": tints[at // 2]} for at, row in enumerate(table))
    return manifest
