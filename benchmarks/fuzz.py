"""Thousands of damaged files through `prepare`: python benchmarks/fuzz.py [--count 2000] [--seed 0] [--workers 2] [--from DIR]

Tiny pictures of every image format and tiny videos of several codecs and containers are made, then mutated by a seed: the
same seed makes the same files. Each must come out as read or as failed with a reason, whatever its decoder does; counts,
reasons, time and peak memory are printed, and the exit code is 1 if any file is unaccounted for.
"""

import io
import os
import re
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout, installed or not

if TYPE_CHECKING:
    import pandas as pd

    from tfdetect.data.prepare.clip_cache import Cache

WIDTH, HEIGHT, FRAMES = 64, 48, 12
CHUNK = 500  # files on disk at once
LARGEST = 4_000_000  # bytes of a file taken from a folder: a mutation of a larger one says no more

TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\x03\0\1\0\0\0\6\0\0\0\0\0\0\0"  # EXIF that says: turn by 90 degrees
# name -> mode and what else Pillow is to do
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain.jpg": ("RGB", {"quality": 90}),
    "progressive.jpg": ("RGB", {"progressive": True, "exif": TURNED}),
    "cmyk.jpg": ("CMYK", {}),
    "plain.png": ("RGB", {}),
    "palette.png": ("P", {}),
    "alpha.png": ("RGBA", {}),
    "deep.png": ("I;16", {}),
    "moving.png": ("RGB", {"save_all": True}),
    "lossy.webp": ("RGB", {}),
    "lossless.webp": ("RGBA", {"lossless": True}),
    "moving.webp": ("RGB", {"save_all": True}),
    "plain.bmp": ("RGB", {}),
    "palette.bmp": ("P", {}),
    "raw.tiff": ("RGB", {}),
    "lzw.tiff": ("RGB", {"compression": "tiff_lzw"}),
    "deflated.tiff": ("I;16", {"compression": "tiff_adobe_deflate"}),
    "float.tiff": ("F", {}),
    "fax.tiff": ("1", {"compression": "group4"}),
    "jpeg.tiff": ("RGB", {"compression": "jpeg"}),
    "pages.tiff": ("RGB", {"save_all": True}),
    "moving.gif": ("P", {"save_all": True}),
    "plain.avif": ("RGB", {"exif": TURNED}),
    "alpha.avif": ("RGBA", {}),
    "moving.avif": ("RGB", {"save_all": True}),
    "boxes.jp2": ("RGB", {}),
    "stream.j2k": ("RGB", {"no_jp2": True}),
}
# name -> codec, pixel format, options of the muxer
VIDEOS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "faststart.mov": ("libx264", "yuv422p", {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "h264.mkv": ("libx264", "yuv420p", {}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "disc.m2ts": ("libx264", "yuv420p", {"mpegts_m2ts_mode": "1"}),
    "phone.3gp": ("mpeg4", "yuv420p", {}),
    "h264.flv": ("libx264", "yuv420p", {}),
    "sorenson.flv": ("flv", "yuv420p", {}),
    "windows.wmv": ("wmv2", "yuv420p", {}),
    "vp8.ogv": ("libvpx", "yuv420p", {}),
    "disc.vob": ("mpeg2video", "yuv420p", {}),
    "hevc.mp4": ("libx265", "yuv420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "av1.mp4": ("libsvtav1", "yuv420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "motion.avi": ("mjpeg", "yuvj420p", {}),
    "huffyuv.avi": ("huffyuv", "yuv422p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "animation.mov": ("qtrle", "rgb24", {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}),
    "loop.gif": ("gif", "rgb8", {}),
}


def frames() -> list[np.ndarray]:
    """A moving pattern, each (height, width, 3) uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 90 * np.sin((columns + 3 * i) / 5 + rows / (4 + np.arange(3)[:, None, None])) for i in range(FRAMES)]
    return [wave.transpose(1, 2, 0).astype(np.uint8) for wave in waves]


def seeds() -> dict[str, bytes]:
    """Name -> bytes of a whole file, of each kind that the codecs of this machine can make."""
    import av

    drawn = frames()
    made = {name: picture(name, drawn, mode, options) for name, (mode, options) in PICTURES.items()}
    known = {name: what for name, what in VIDEOS.items() if what[0] in av.codecs_available}
    with open(os.devnull, "w") as nowhere, open(os.dup(2), "w") as screen:
        os.dup2(nowhere.fileno(), 2)  # some encoders talk
        try:
            return made | {name: video(name, drawn, *what) for name, what in known.items()}
        finally:
            os.dup2(screen.fileno(), 2)


def picture(name: str, drawn: Sequence[np.ndarray], mode: str, options: dict[str, Any]) -> bytes:
    target = io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(drawn[0][..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(drawn[0]).convert(mode)
    more = {"append_images": [Image.fromarray(frame).convert(mode) for frame in drawn[1:]]} if "save_all" in options else {}
    image.save(target, {"jpg": "jpeg", "jp2": "jpeg2000", "j2k": "jpeg2000"}.get(ending := name[name.rfind(".") + 1 :], ending),
               **options, **more)  # fmt: skip
    return target.getvalue()


def video(name: str, drawn: Sequence[np.ndarray], codec: str, pixels: str, muxer: dict[str, str]) -> bytes:
    import av

    with tempfile.TemporaryDirectory() as folder:  # some muxers read again what they wrote
        with av.open(f"{folder}/{name}", "w", options={"fflags": "+bitexact"} | muxer) as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = WIDTH, HEIGHT, pixels, 5
            for frame in drawn:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return Path(folder, name).read_bytes()


def flip(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    for at in rng.integers(0, len(data), rng.integers(1, 17)):
        data[at] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    start, end = span(data, rng)
    fill = (bytes(end - start), b"\xff" * (end - start), rng.bytes(end - start))
    data[start:end] = fill[rng.integers(3)]


def cut(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    del data[int(len(data) * rng.random()) :]


def remove(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    start, end = span(data, rng)
    del data[start:end]


def repeat(data: bytearray, rng: np.random.Generator, _: bytes) -> None:
    start, end = span(data, rng)
    data[end:end] = data[start:end] * int(rng.integers(1, 4))


def splice(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    """The head of this file, the rest of another, or some of another in its midst."""
    start, end = span(data, rng)
    first, last = span(other, rng)
    data[start : len(data) if rng.integers(2) else end] = other[first:last]


def announce(data: bytearray, rng: np.random.Generator, __: bytes) -> None:
    """An extreme number where a size, a count or a time may stand: near the name of a box or chunk, or in the first bytes."""
    names = [match.start() for match in re.finditer(rb"[A-Za-z]{4}", data)]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.choice(names)) + int(rng.integers(-4, 40)) if names and rng.integers(3) else int(rng.integers(0, 200))
        wide = int(rng.choice((1, 2, 4, 8)))
        top = 256**wide
        number = int(rng.choice(np.array((0, 1, top // 2 - 1, top // 2, top - 1, top // 256), dtype=object)))
        at = max(0, min(at, len(data) - wide))
        data[at : at + wide] = number.to_bytes(wide, "big" if rng.integers(2) else "little")


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator, bytes], None], ...]
MUTATIONS = (flip, overwrite, cut, remove, repeat, splice, announce, announce)


def span(data: bytes | bytearray, rng: np.random.Generator) -> tuple[int, int]:
    """A range of the file, mostly a short one."""
    start = int(len(data) * rng.random() ** 2)  # heads hold more than what follows
    return start, min(len(data), start + 1 + int(len(data) * rng.random() ** 4))


def checksums(data: bytearray) -> None:
    """Right the checksums of a PNG, so that what was mutated comes to the decoder."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">I", data, at)[0]
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4


def mutated(whole: dict[str, bytes], number: int, seed: int) -> tuple[str, bytes]:
    """File `number` of a seed: (name, bytes)."""
    rng = np.random.default_rng((seed, number))
    names = sorted(whole)
    name = names[number % len(names)]
    data, done = bytearray(whole[name]), []
    for _ in range(int(rng.choice((1, 1, 2, 3)))):
        change = MUTATIONS[rng.integers(len(MUTATIONS))]
        change(data, rng, whole[names[rng.integers(len(names))]])
        done.append(change.__name__)
        data = data or bytearray(1)
    if data.startswith(b"\x89PNG") and rng.integers(4):
        checksums(data)
    suffix = (Path(name) if rng.integers(4) else Path(names[rng.integers(len(names))])).suffix
    return f"{number:06d}-{Path(name).stem}-{'-'.join(done)}{suffix}", bytes(data)


def write(whole: dict[str, bytes], numbers: Sequence[int], seed: int, folder: Path) -> list[str]:
    """Make these files of a seed; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in (mutated(whole, number, seed) for number in numbers):
        (folder / name).write_bytes(data)
        paths.append(str(folder / name))
    return paths


@dataclass(frozen=True)
class Asked:
    """Mutate files, prepare them, and count what became of them."""

    count: int = 2000
    """How many mutated files."""
    seed: int = 0
    """Decides them."""
    workers: int | None = None
    """Processes that decode; by default one for each core."""
    timeout: float = 20.0
    """Seconds for each file."""
    folder: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Mutate the images and videos of this folder too."""
    keep: Path | None = None
    """A folder to keep the mutated files in."""


def run(paths: Sequence[str], cache: "Cache", workers: int | None, timeout: float) -> "pd.DataFrame":
    """`prepare` the files. SystemExit if one of them, or the clip of one, is unaccounted for."""
    import pandas as pd

    from tfdetect.data.prepare.decode import prepare

    found = prepare(pd.DataFrame({"path": paths}), cache, workers, seconds=timeout)
    frames = [0 if error else len(cache.load(sha)) for sha, error in zip(found["sha"], found["error"], strict=True)]
    torn = (found["error"] == "") == (found["frames"] == 0)
    if list(found["path"]) != list(paths) or frames != list(found["frames"]) or torn.any():
        raise SystemExit("files are unaccounted for")
    return found


def main() -> None:
    """Make, prepare and count them by the chunk, so that the disk holds few."""
    import pandas as pd

    from tfdetect.data.media.sniff import is_media
    from tfdetect.data.prepare.clip_cache import Cache, ClipSpec

    asked = tyro.cli(Asked)
    whole, start, tables = seeds(), time.monotonic(), []
    for path in sorted(asked.folder.rglob("*")) if asked.folder else ():
        if path.is_file() and is_media(path) and path.stat().st_size <= LARGEST:
            whole[f"{path.parent.name}-{path.name}"] = path.read_bytes()
    for first in range(0, asked.count, CHUNK):
        with tempfile.TemporaryDirectory() as temporary, nullcontext(asked.keep or Path(temporary)) as folder:
            paths = write(whole, range(first, min(first + CHUNK, asked.count)), asked.seed, folder)
            tables.append(run(paths, Cache(Path(temporary) / "cache", ClipSpec(8, 32)), asked.workers, asked.timeout))
    report(pd.concat(tables), asked, len(whole), time.monotonic() - start)


def report(table: "pd.DataFrame", asked: Asked, kinds: int, seconds: float) -> None:
    from tfdetect.data.prepare.decode import summarise_failures

    failures = table["error"]
    lines = {
        "read": ((failures == "") & (table["note"] == "")).sum(),
        "read, with a note of damage or repeats": ((failures == "") & (table["note"] != "")).sum(),
        "failed, with a reason": (failures != "").sum(),
        "  of them: a decoder crashed": failures.str.contains("crashed").sum(),
        "  of them: out of time": failures.str.contains("decoding took longer").sum(),
        "  of them: out of memory": failures.str.contains("memory").sum(),
    }
    print(f"{len(table)} files from {kinds} whole ones, seed {asked.seed}")
    for text, count in lines.items():
        print(f"{count:7d} {text}")
    for reason, count, example in summarise_failures(table):
        print(f"{count:7d} x {reason}   ({Path(example).name})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{seconds:.0f} seconds; peak memory of the largest worker {peak} MB")
    if len(table) != asked.count:
        raise SystemExit(f"{asked.count - len(table)} files are unaccounted for")


if __name__ == "__main__":
    main()
