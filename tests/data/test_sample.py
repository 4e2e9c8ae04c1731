"""The embedded data set: its files, its guarantees, and (slow) the proof that only the content separates the classes."""

import csv
import io
import sys
from pathlib import Path
from subprocess import run

import av
import cv2
import numpy as np
import pytest

from tfdetect.data import sample, worker_pool
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
    monkeypatch.setattr(worker_pool, "_schedule", None)  # starting a worker now fails
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


# --- the manipulations ----------------------------------------------------------------------------------------------


def twins(source: str, **settings: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return real and fake (frames, size, size, 3) before encoding, and the disc (size, size) in which they may differ."""
    spec = Sample(sources=(source,), count=1, **settings)
    real, fake = (sample.render_clip(spec, 0, name).astype(np.float32) for name in ("camera", source))
    scene = sample.Scene.draw(np.random.default_rng([spec.seed, 0]), spec.size)
    return real, fake, scene.mask(spec.size, np.zeros(2), 5.0 * spec.size / 64)[..., 0]


@pytest.mark.parametrize("source", ["swap", "upsample"])
@pytest.mark.parametrize("size", [64, 256])
def test_only_the_region_is_manipulated(source: str, size: int) -> None:
    real, fake, disc = twins(source, size=size, frames=2)
    assert np.array_equal(real[:, disc == 0], fake[:, disc == 0])
    assert np.abs(real - fake)[:, disc == 1].mean() > 5


def test_upsample_leaves_a_grid_of_four_pixels() -> None:
    real, fake, disc = twins("upsample")
    wave = sample.alternating_wave(64)
    grid = (wave[:, None] + wave) / 2 * (disc == 1)
    strength = [((clip.mean(axis=(0, 3)) * grid).sum() / (grid**2).sum()) for clip in (real, fake)]
    assert abs(strength[0]) < 3
    assert strength[1] == pytest.approx(sample.GRID, abs=3)


def test_swap_shows_another_scene_with_other_noise_and_the_same_colour() -> None:
    real, fake, disc = twins("swap")
    inside = [clip[:, disc == 1] for clip in (real, fake)]
    assert np.corrcoef(inside[0].mean(axis=0).ravel(), inside[1].mean(axis=0).ravel())[0, 1] < 0.7
    assert np.allclose(real.mean(axis=(1, 2)), fake.mean(axis=(1, 2)), atol=1)
    grain = [np.diff(clip, axis=0).std(axis=0).mean() for clip in inside]  # little motion, new grain
    assert grain[1] < 0.8 * grain[0]
    wave = np.broadcast_to(sample.alternating_wave(64), (64, 64))[disc == 1]
    stripes = [(clip.mean(axis=(0, 2)) * wave).mean() for clip in inside]
    assert abs(stripes[0]) < 3
    assert stripes[1] == pytest.approx(sample.STRIPES, abs=3)


def test_flicker_varies_over_time_but_not_in_a_single_frame() -> None:
    real, fake, disc = twins("flicker")
    assert np.array_equal(real[0], fake[0])  # the real twin keeps the state of the first frame
    steps = [np.abs(np.diff(clip[:, disc == 1].mean(axis=(1, 2)))).mean() for clip in (real, fake)]
    assert steps[1] > 5 * steps[0]


def test_exposure_equalises_the_mean_brightness() -> None:
    scene = sample.Scene.draw(np.random.default_rng(0), 64)
    dark, bright = (scene.render(64, 0, gain, np.zeros(2)) for gain in (-1.0, 1.0))
    assert np.abs(dark - bright).max() > 20
    assert np.allclose(dark.mean(axis=(0, 1)), bright.mean(axis=(0, 1)), atol=0.1)


def test_single_frames_of_flicker_and_real_twins_have_one_distribution() -> None:
    spec = Sample()
    fixed, varying = (
        [sample.draw_motion(np.random.default_rng(seed), spec, fixed)[0] for seed in range(2000)] for fixed in (True, False)
    )
    assert np.ptp(fixed, axis=1).max() == 0
    quantiles = np.linspace(0.05, 0.95, 7)
    assert np.allclose(np.quantile(np.stack(fixed)[:, 0], quantiles), np.quantile(varying, quantiles), atol=0.1)


# --- learnability-----------------------------------------------------------------------------------------------------


def decoded(folder: Path, spec: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return clips (files, frames, height, width, 3) uint8, file sizes, labels and groups, in the order of the manifest."""
    rows = table(write(spec, folder))
    raw = [(folder / row["path"]).read_bytes() for row in rows]
    if spec.kind == "video":
        clips = [frames(data) for data in raw]
    else:
        clips = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[None, ..., ::-1] for data in raw]
    labels = np.array([int(row["label"]) for row in rows])
    return np.stack(clips), np.array([len(data) for data in raw]), labels, np.array([row["group"] for row in rows])


def shortcut_auc(clips: np.ndarray, size: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Return the best AUC of classifiers that see only file size, bytes per frame, frame count and mean colour."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = np.full(len(clips), clips.shape[1])
    features = np.column_stack([size, size / count, count, clips.mean(axis=(1, 2, 3))])
    forest = RandomForestClassifier(300, min_samples_leaf=5, random_state=0)
    scores = [size]
    for model in (forest, make_pipeline(StandardScaler(), LogisticRegression())):
        folds = cross_val_predict(model, features, labels, groups=groups, cv=GroupKFold(5), method="predict_proba")
        scores.append(folds[:, 1])
    aucs = [roc_auc_score(labels, score) for score in scores]
    return max(aucs[1], aucs[2], aucs[0], 1 - aucs[0])


def trunk(x, dropout: float = 0.1):
    """Map frames (batch, 64, 64, 3) in 0..255 to features (batch, 256)."""
    from keras import layers

    x = layers.Rescaling(1 / 127.5, offset=-1)(x)
    for filters, kernel in ((16, 3), (32, 3), (64, 5)):
        x = layers.Dropout(dropout)(layers.MaxPooling2D()(layers.Conv2D(filters, kernel, activation="relu")(x)))
    return layers.Dense(256, activation="relu")(layers.Flatten()(x))


def video_model():
    import keras
    from keras import layers

    clip = keras.Input((16, 64, 64, 3))
    x = keras.ops.reshape(trunk(keras.ops.reshape(clip, (-1, 64, 64, 3))), (-1, 16, 256))
    return keras.Model(clip, layers.Dense(1)(layers.Dense(64, activation="relu")(layers.LSTM(64)(x))))


def frame_model():
    import keras
    from keras import layers

    frame = keras.Input((64, 64, 3))
    return keras.Model(frame, layers.Dense(1)(layers.Dense(64, activation="relu")(trunk(frame))))


def image_model():
    import keras
    from keras import layers

    image = keras.Input((256, 256, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    for filters in (16, 32, 64, 64):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, padding="same", activation="relu")(x))
    x = layers.Dense(64, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(1)(x))


def fit_model(model, inputs: np.ndarray, labels: np.ndarray, epochs: int, batch: int, rate: float) -> None:
    import keras

    model.compile(keras.optimizers.Adam(rate), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(inputs, labels, batch_size=batch, epochs=epochs, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "source"),
    [
        ("video", 64, "swap"),
        ("video", 64, "upsample"),
        ("video", 64, "flicker"),
        ("image", 256, "swap"),
        ("image", 256, "upsample"),
    ],
)
def test_no_shortcut_separates_the_classes(kind: str, size: int, source: str, tmp_path: Path) -> None:
    spec = Sample(kind=kind, size=size, count=300, sources=(source,))  # type: ignore[arg-type]
    assert shortcut_auc(*decoded(tmp_path / "out", spec)) < 0.6


@pytest.mark.slow
def test_flicker_is_visible_only_over_time(tmp_path: Path) -> None:
    import keras
    from sklearn.metrics import roc_auc_score

    clips, _, labels, _ = decoded(tmp_path / "out", Sample(count=300, sources=("flicker",)))
    train = slice(0, 400)  # 200 real and 200 fake; twins are neighbours, so no group is on both sides
    test = slice(400, None)
    keras.utils.set_random_seed(0)
    frame = frame_model()
    fit_model(frame, clips[train].reshape(-1, 64, 64, 3), np.repeat(labels[train], 16), epochs=3, batch=32, rate=5e-4)
    scores = frame.predict(clips[test].reshape(-1, 64, 64, 3), verbose=0).reshape(-1, 16).mean(axis=1)
    assert 0.35 < roc_auc_score(labels[test], scores) < 0.65
    video = video_model()
    fit_model(video, clips[train], labels[train], epochs=8, batch=8, rate=5e-4)
    assert roc_auc_score(labels[test], video.predict(clips[test], verbose=0)[:, 0]) >= 0.9


@pytest.mark.slow
def test_mixed_manipulations_are_learned(tmp_path: Path) -> None:
    import keras
    from sklearn.metrics import roc_auc_score

    spec = Sample()
    clips, _, labels, _ = decoded(tmp_path / "out", spec)
    train = slice(0, 2 * (spec.count * 7 // 10))
    rest = slice(train.stop, None)
    keras.utils.set_random_seed(0)
    video = video_model()
    assert video.count_params() == 552_609
    fit_model(video, clips[train], labels[train], epochs=12, batch=8, rate=5e-4)
    scores = video.predict(clips[rest], verbose=0)[:, 0]
    sources = np.repeat(np.resize(spec.sources, spec.count), 2)[rest]
    for source in set(spec.sources):
        assert roc_auc_score(labels[rest][sources == source], scores[sources == source]) >= 0.9


@pytest.mark.slow
def test_images_are_learned(tmp_path: Path) -> None:
    import keras
    from sklearn.metrics import roc_auc_score

    clips, _, labels, _ = decoded(tmp_path / "out", Sample(kind="image", size=256, count=300))
    train, test = slice(0, 420), slice(420, None)
    keras.utils.set_random_seed(0)
    model = image_model()
    fit_model(model, clips[train, 0], labels[train], epochs=10, batch=16, rate=1e-3)
    assert roc_auc_score(labels[test], model.predict(clips[test, 0], verbose=0)[:, 0]) >= 0.9
