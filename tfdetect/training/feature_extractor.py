"""The features of a run's files: outputs of the frozen part of its model, stored in the cache for every later run."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfdetect import backend
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.input_pipeline.feature_store import FeatureStore, add_missing
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, FeatureTable
from tfdetect.models.layers import common
from tfdetect.models.pretrained import fast_blocks

BATCH = 32  # frames
CONCURRENT_BATCHES = 2
VERSION = 1  # of the features; a higher one recomputes all of them
Progress = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


def silent(title: str, total: int) -> AbstractContextManager[Callable[..., None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda **options: None)


class FeatureExtractor:
    """Computes and stores the outputs of a model's layer `features` for files in the cache."""

    def __init__(self, model: keras.Model, detector: Detector, cache: Cache, progress: Progress):
        """`progress(title, total)` is a context manager that yields a function to call with `advance=` frames done."""
        self.frozen = common.submodel_until(model, "features")
        fast_blocks.speed_up(self.frozen)
        self.cache, self.single, self.progress = cache, detector.input_kind == "frame", progress
        self.frames = model.input_shape[1]
        self.batch = keras.Model(self.frozen.inputs, self.frozen.outputs).predict_on_batch
        name = f"v{VERSION}-{cache.folder.name}-{digest(self.frozen)}-{detector.feature_dtype}"
        self.store = FeatureStore(cache.root / "features" / name, detector.feature_dtype)

    def of(self, table: pd.DataFrame, views: int = 1, augment: str = "") -> FeatureTable:
        """Return the features of a prepared table's files, one row per frame, for a clip detector one per file, and `views` of
        each: the first is the frame or clip itself, the others are augmented by `augment`."""
        rows = dataset.expand_frames(table, self.single)
        rows = rows.loc[rows.index.repeat(views)].assign(view=np.tile(np.arange(views), len(rows))).reset_index(drop=True)
        names = [f"{sha}:{frame}" + (f":{view}:{augment}".replace(" ", "") if view else "")
                 for sha, frame, view in zip(rows["sha"], rows["frame"], rows["view"], strict=True)]  # fmt: skip
        with self.progress("Computing features", len(names) * self.frames) as step:
            add_missing(self.store, names, lambda places: self._compute(rows.iloc[places], augment),
                        lambda count: step(advance=count * self.frames))  # fmt: skip
        texts, sources = ([*rows[name]] if name in rows else [""] * len(rows) for name in ("text", "source"))
        return FeatureTable(self.store.gather(names), rows["label"].to_numpy(), texts, [*rows["path"]], sources)

    def _compute(self, rows: pd.DataFrame, augment: str) -> Iterator[np.ndarray]:
        waiting: deque[Future] = deque()
        concurrent = CONCURRENT_BATCHES if backend.is_tensorflow() else 1  # on jax, models change state when they predict
        with ThreadPoolExecutor(concurrent) as pool:  # a single batch leaves cores idle between its steps
            batch = max(1, BATCH // self.frames)
            for clips in dataset.augmented_views(rows.reset_index(drop=True), self.cache, self.single, batch, augment):
                waiting.append(pool.submit(self.batch, clips.numpy()))
                if len(waiting) > concurrent:
                    yield np.asarray(waiting.popleft().result(), np.float32)
            yield from (np.asarray(rows.result(), np.float32) for rows in waiting)


def digest(model: keras.Model) -> str:
    """Return 16 hexadecimal digits of what decides a model's outputs: its layers, their wiring and weights, but no names."""
    sha = hashlib.sha256(json.dumps(_without_names(json.loads(model.to_json())), sort_keys=True).encode())
    for weight in model.weights:
        sha.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return sha.hexdigest()[:16]


def _without_names(tree: Any, places: Mapping[str, int] = MappingProxyType({})) -> Any:
    """A model's configuration without names, which differ between processes: layers are referred to by their place in
    the model, from `places`."""
    if isinstance(tree, list):
        return [_without_names(value, places) for value in tree]
    if not isinstance(tree, dict) or str(tree.get("class_name")).endswith("DTypePolicy"):  # whose name is a dtype
        return tree
    if isinstance(layers := tree.get("layers"), list):
        places = {layer["name"]: place for place, layer in enumerate(layers) if "name" in layer}
    wires = {key: _by_place(tree[key], places) for key in ("keras_history", "input_layers", "output_layers") if key in tree}
    rest = {key: _without_names(value, places) for key, value in tree.items() if key not in ("name", "seed", *wires)}
    return rest | wires


def _by_place(wires: Any, places: Mapping[str, int]) -> Any:
    """[layer, node, output], or a list or dict of such, with a layer's place instead of its name."""
    if isinstance(wires, dict):
        return {key: _by_place(value, places) for key, value in wires.items()}
    return [_by_place(value, places) for value in wires] if isinstance(wires, list) else places.get(wires, wires)
