"""The embedded data set: its files and its guarantees."""

import csv
import io
import sys
from pathlib import Path
from subprocess import run

import av
import cv2
import numpy as np
import pytest

from tfdetect.data import sample, worker_processes
from tfdetect.data.sample import Sample, write

SMALL = Sample(count=4, seed=3, size=32, frames=3)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def table(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def frames(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(SMALL, tmp_path_factory.mktemp("sample") / "out", workers=1).parent


def test_command_line_chooses_the_sources_of_the_kind(tmp_path: Path) -> None:
    from tfdetect.verbs import sample as verb

    verb.main(["--out", str(tmp_path), "--kind", "image", "--count", "2", "--size", "32"])
    assert {row["source"] for row in table(tmp_path / "manifest.csv")} == {"camera", "swap", "upsample"}


# --- manifest and files ----------------------------------------------------------------------------------------------


def test_manifest_names_each_group_twice(written: Path) -> None:
    rows = table(written / "manifest.csv")
    assert list(rows[0]) == ["path", "label", "split", "group", "source", "text", "category"]
    assert [row["path"] for row in rows[:2]] == ["real/00000.mp4", "fake/00000.mp4"]
    assert [(row["label"], row["group"], row["source"]) for row in rows[2:4]] == [
        ("0", "scene-00001", "camera"),
        ("1", "scene-00001", "swap"),
    ]
    assert [row["source"] for row in rows[1::2]] == ["flicker", "swap", "flicker", "upsample"]
    assert {row["split"] for row in rows} == {row["text"] for row in rows} == {""}
    assert set(files(written)) == {row["path"] for row in rows} | {"manifest.csv", "sample.json"}


def test_category_matches_the_image_and_is_equal_in_twins(tmp_path: Path) -> None:
    folder = write(Sample(kind="image", count=12, size=64), tmp_path / "out", workers=1).parent
    rows = table(folder / "manifest.csv")
    for real, fake in zip(rows[::2], rows[1::2], strict=True):
        strongest = cv2.imread(str(folder / real["path"]))[..., ::-1].mean(axis=(0, 1)).argmax()
        assert real["category"] == fake["category"] == sample.TINTS[strongest]
    assert {row["category"] for row in rows} == set(sample.TINTS)


def test_manifest_without_categories_is_rewritten(written: Path) -> None:
    before = files(written)
    (written / "manifest.csv").write_text("path,label,split,group,source,text\n")
    write(SMALL, written, workers=1)
    assert files(written) == before


def test_videos_are_intra_only_and_have_equal_parameters(written: Path) -> None:
    for row in table(written / "manifest.csv"):
        with av.open(str(written / row["path"])) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            assert all(packet.is_keyframe for packet in packets)
            assert len(packets) == SMALL.frames
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 32, 32)
            assert stream.average_rate == sample.FPS


def test_images_are_jpegs_of_one_quality(tmp_path: Path) -> None:
    folder = write(Sample(kind="image", count=2, size=64), tmp_path / "out", workers=1).parent
    rows = table(folder / "manifest.csv")
    assert [row["source"] for row in rows] == ["camera", "swap", "camera", "upsample"]
    tables = set()
    for row in rows:
        data = (folder / row["path"]).read_bytes()
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (64, 64, 3)
        start = data.index(b"\xff\xdb")  # the quantisation table determines the quality
        tables.add(data[start : start + 69])
    assert len(tables) == 1


# --- repeating, resuming and refusing --------------------------------------------------------------------------------


def test_files_do_not_depend_on_workers(written: Path, tmp_path: Path) -> None:
    assert files(write(SMALL, tmp_path / "two", workers=2).parent) == files(written)


def test_another_seed_gives_other_files(written: Path, tmp_path: Path) -> None:
    other = write(Sample(count=1, seed=4, size=32, frames=3), tmp_path / "other", workers=1).parent
    assert (other / "real/00000.mp4").read_bytes() != (written / "real/00000.mp4").read_bytes()


def test_interrupted_write_is_resumed(written: Path, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(SMALL, tmp_path / "out", workers=1, progress=stop)
    assert not (tmp_path / "out/manifest.csv").exists()
    assert len(list((tmp_path / "out").rglob("*.mp4"))) < 2 * SMALL.count
    first = tmp_path / "out/real/00000.mp4"
    before = first.stat().st_mtime_ns
    calls: list[None] = []
    write(SMALL, tmp_path / "out", workers=1, progress=lambda: calls.append(None))
    assert len(calls) == 2 * SMALL.count
    assert first.stat().st_mtime_ns == before
    for partial in (tmp_path / "out").rglob(".part-*"):  # of the worker that was ended while it wrote a file
        partial.unlink()
    assert files(tmp_path / "out") == files(written)


def test_finished_sample_is_reused(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes.Processes, "schedule", None)  # starting a worker now fails
    before = files(written)
    assert write(SMALL, written) == written / "manifest.csv"
    assert files(written) == before


def test_missing_file_is_rewritten(written: Path) -> None:
    before = files(written)
    (written / "fake/00002.mp4").unlink()
    write(SMALL, written, workers=1)
    assert files(written) == before


def test_folder_with_other_content_is_refused(written: Path, tmp_path: Path) -> None:
    before = files(written)
    with pytest.raises(ValueError, match=r'another sample.*"seed": 3.*another --out'):
        write(Sample(count=4, seed=5, size=32, frames=3), written)
    assert files(written) == before
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"files that are not a sample.*another --out"):
        write(SMALL, tmp_path)
    assert files(tmp_path) == {"holiday.mp4": b"mine"}


def test_failed_write_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    (tmp_path / "real").mkdir()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        sample.write_file(SMALL, tmp_path, sample.manifest_rows(SMALL)[0])
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "audio"}, "kind is 'audio'; it must be image or video"),
        ({"kind": "image", "sources": ("flicker",)}, r"unknown sources \['flicker'\] for images"),
        ({"count": 0}, "count must be at least 1"),
        ({"frames": 1}, "frames at least 2"),
        ({"seed": -1}, "seed at least 0"),
        ({"size": 66}, "size is 66; it must be a multiple of 4"),
    ],
)
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sample(**settings)


def test_import_is_light() -> None:
    code = (
        "import sys, tfdetect.data.sample; print({'tensorflow', 'keras', 'pandas', 'sklearn', 'av'} & set(sys.modules))"
    )
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
