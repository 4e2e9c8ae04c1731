"""Compare `prepare` on videos with bare `ffmpeg -threads 1` and with the OpenCV loop that people write.

    pip install imageio-ffmpeg
    python benchmarks/video.py [--files DIR] [--rounds 5] [--long] [--quick]

The videos of `video_files.py`, 72 of 10 s and with --long six more of ten minutes, become 16 frames of 224 x 224 pixels. ffmpeg
decodes all frames and drops them, two files at a time; the OpenCV loop reads all frames and keeps 16, in two processes; `prepare`
is the whole command. What it takes for 24 tiny files, its fixed start with both decoding processes, is measured in each round and
subtracted. The files of ten minutes get one round and no OpenCV loop. The files are written to --files on the first run, in some
ten minutes, and kept.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs from a checkout, installed or not

import side_by_side
import video_files
from video_files import B_FRAMES, CODECS, Video

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SIZE, PROCESSES = 16, 224, 2
OURS, START, FFMPEG, OPENCV = "prepare", "prepare of 24 tiny files", "ffmpeg -threads 1", "OpenCV loop"
TOLERANCE = 6.0  # grey levels on average, between the frames of OpenCV and ours; other frames differ by more than 15
PACKAGES = ("av", "numpy", "opencv-python-headless", "imageio-ffmpeg")


def opencv_clip(path: str) -> np.ndarray | None:
    """Return FRAMES frames of a video, (FRAMES, SIZE, SIZE, 3) uint8 RGB, as in many tutorials; None if there are no frames."""
    import cv2

    capture = cv2.VideoCapture(path)
    wanted = set(np.linspace(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) - 1, FRAMES).round().astype(int))
    frames, index = [], 0
    while True:
        success, frame = capture.read()
        if not success:
            break
        if index in wanted:
            frames.append(cv2.cvtColor(cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB))
        index += 1
    capture.release()
    return np.stack(frames) if frames else None


def count_with_opencv(paths: list[str]) -> list[int]:
    """Return the number of frames that OpenCV gives of each video, read in two processes."""
    with get_context("fork").Pool(PROCESSES) as pool:
        return [0 if clip is None else len(clip) for clip in pool.map(opencv_clip, paths, chunksize=1)]


def run_ffmpeg(paths: Sequence[str]) -> None:
    """Decode the videos to nothing, two at a time."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", "-i"]
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(lambda path: subprocess.run([*command, path, "-map", "0:v", "-f", "null", "-"], check=True), paths))


def run_prepare(data: Path, scratch: Path) -> list[str]:
    """Run the command on a folder with real/ and fake/, into a new folder; return the lines of its manifest."""
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        command = [sys.executable, str(ROOT / "scripts" / "prepare.py"), str(data), "--out", f"{out}/prepared", "--data.frames",
                   str(FRAMES), "--data.size", str(SIZE), "--data.group", "file"]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Path(out, "prepared", "manifest.csv").read_text().splitlines()[1:]


def as_data_set(folder: Path, paths: Sequence[Path]) -> Path:
    """Link the files into real/ and fake/ of a folder, in turn."""
    for number, path in enumerate(paths):
        link = folder / ("real", "fake")[number % 2] / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder


def write_tiny(folder: Path) -> Path:
    """Write videos of a few small frames, as a data set: enough for all decoding processes to start."""
    from tfdetect.data.media.encode import encode_h264

    folder.mkdir()
    for number in range(24):
        frames = np.random.default_rng(number).integers(0, 256, (FRAMES, 32, 32, 3), np.uint8)
        (folder / f"{number}.mp4").write_bytes(encode_h264(frames, 25, {}))
    return as_data_set(folder / "set", sorted(folder.glob("*.mp4")))


def check_frames(paths: Sequence[str], reads_all: bool, results: dict[str, Any]) -> None:
    """Require all sides to have read all files, and the frames of our reader to be those of the OpenCV loop, in one
    file in four."""
    from tfdetect.data.media.read import read_media

    if len(results[OURS]) != len(paths) or any("damaged" in row for row in results[OURS]):
        raise SystemExit(f"prepare did not read all files: {results[OURS]}")
    if reads_all and results[OPENCV] != [FRAMES] * len(paths):
        raise SystemExit(f"OpenCV gives other numbers of frames: {results[OPENCV]}")
    for path in paths[::4] if reads_all else ():
        difference = np.abs(read_media(path, FRAMES, size=SIZE).frames.astype(float) - opencv_clip(path)).mean()  # type: ignore[operator]
        if difference > TOLERANCE:
            raise SystemExit(f"{path}: the frames differ from OpenCV's by {difference:.1f} grey levels on average")


def net_ratios(report: side_by_side.Report, cases: Sequence[str], other: str, measure: str) -> float:
    """Return the median over the rounds of: seconds of `prepare` without its start, by those of the other side, of all cases."""
    sides = [report.cases[case]["sides"] for case in cases]
    sums = {name: [sum(values) for values in zip(*(side[name][f"{measure}s"] for side in sides), strict=True)]
            for name in (OURS, START, other)}  # fmt: skip
    rounds = zip(*(sums[name] for name in (OURS, START, other)), strict=True)
    return median((ours - start) / theirs for ours, start, theirs in rounds)


def add_lines(report: side_by_side.Report, prefix: str, codecs: Sequence[str], length: str) -> None:
    """Add the lines of some codecs together."""
    cases = [f"{codec}, {length}" for codec in codecs]
    bounds = (0.7, 0.55) if set(codecs) <= set(B_FRAMES) else (1.0, 0.85)
    ratio = net_ratios(report, cases, FFMPEG, "cpu")
    report.add_line(f"{prefix}: CPU time as a share of ffmpeg's", ratio, *bounds, "lower", measure="cpu", cases=cases)
    with_opencv = [case for case in cases if OPENCV in report.cases[case]["sides"]]
    if with_opencv:
        speed = 1 / net_ratios(report, with_opencv, OPENCV, "wall")
        report.add_line(f"{prefix}: times faster than the OpenCV loop", speed, 1.3, 2.0, measure="wall", cases=with_opencv)


def compare(report: side_by_side.Report, files: dict[Video, Path], length: str, worker: side_by_side.Worker | None,
            scratch: Path) -> None:  # fmt: skip
    """Time all sides on the files, codec by codec, and add the lines."""
    tiny = write_tiny(scratch / f"tiny-{length}".replace(" ", "-"))
    for codec in CODECS:
        paths = [path for video, path in files.items() if video.codec == codec]
        names, data = list(map(str, paths)), as_data_set(scratch / f"{codec}-{length}".replace(" ", "-"), paths)
        reads = worker is not None and opencv_clip(names[0]) is not None
        sides: dict[str, Callable[[], Any]] = {OURS: partial(run_prepare, data, scratch),
                                               START: partial(run_prepare, tiny, scratch),
                                               FFMPEG: partial(run_ffmpeg, names)}  # fmt: skip
        if worker and reads:
            sides[OPENCV] = partial(worker.call, "count_with_opencv", names)
        elif worker:
            report.facts[f"OpenCV and {codec}"] = "it gives no frame of these files, without an error"
        report.compare(f"{codec}, {length}", sides, len(paths), "videos", partial(check_frames, names, reads))
        add_lines(report, f"{codec}, {length}", [codec], length)
    add_lines(report, f"with B-frames, {length}", B_FRAMES, length)
    add_lines(report, f"without B-frames, {length}", [codec for codec in CODECS if codec not in B_FRAMES], length)


def main() -> None:
    parser = side_by_side.options_parser(__doc__, __file__)
    parser.add_argument("--files", type=Path, default=ROOT / "cache" / "benchmark_videos", help="folder of the files")
    parser.add_argument("--long", action="store_true", help="also files of ten minutes")
    options = parser.parse_args()
    report = side_by_side.Report(__file__, options, PACKAGES, {"scenes": 0})
    files = video_files.provide(options.files, video_files.list_videos(options.quick))
    report.facts["files"] = {video.name: path.stat().st_size for video, path in files.items()}
    worker = side_by_side.Worker(__file__)
    with tempfile.TemporaryDirectory() as scratch:
        compare(report, files, "10 s", worker, Path(scratch))
        worker.close()
        report.write()
        if options.long:
            rounds, report.rounds = report.rounds, 1
            compare(report, video_files.provide(options.files, video_files.list_long_videos()), "10 minutes", None, Path(scratch))
            report.facts["rounds of the files of 10 minutes"], report.rounds = report.rounds, rounds
            report.write()


if __name__ == "__main__":
    if sys.argv[1:] == [side_by_side.WORKER]:
        side_by_side.serve({"count_with_opencv": count_with_opencv})
    else:
        main()
