"""Only the content of the embedded data set separates its classes, and detectors learn it."""

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from tfdetect.data.sample import Sample, write

pytestmark = pytest.mark.slow


def frames(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def decoded(folder: Path, spec: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return clips (files, frames, height, width, 3) uint8, file sizes, labels and groups, in the order of the manifest."""
    rows = pd.read_csv(write(spec, folder), dtype={"group": str})
    raw = [(folder / path).read_bytes() for path in rows["path"]]
    if spec.kind == "video":
        clips = [frames(data) for data in raw]
    else:
        clips = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[None, ..., ::-1] for data in raw]
    return np.stack(clips), np.array([len(data) for data in raw]), rows["label"].to_numpy(), rows["group"].to_numpy()


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


def test_images_are_learned(tmp_path: Path) -> None:
    import keras
    from sklearn.metrics import roc_auc_score

    clips, _, labels, _ = decoded(tmp_path / "out", Sample(kind="image", size=256, count=300))
    train, test = slice(0, 420), slice(420, None)
    keras.utils.set_random_seed(0)
    model = image_model()
    fit_model(model, clips[train, 0], labels[train], epochs=10, batch=16, rate=1e-3)
    assert roc_auc_score(labels[test], model.predict(clips[test, 0], verbose=0)[:, 0]) >= 0.9
