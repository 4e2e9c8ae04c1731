"""The features of a run's files: outputs of the frozen part of its model, stored in the cache for every later run."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tfdetect.models.pretrained import fast_blocks

BATCH = 32  # frames
CONCURRENT_BATCHES = 2
VERSION = 1  # of the features; a higher one recomputes all of them
Progress = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


def silent(title: str, total: int) -> AbstractContextManager[Callable[..., None]]:
    """A progress bar that shows nothing."""
    return nullcontext(lambda **options: None)


class FeatureExtractor:
    """Computes and stores the outputs of a model's layer `features` for files in the cache.

    Where that layer concatenates several sets of features, each set has a store of its own, which it shares with every model that
    computes the same set. Sets that are missing are computed in one pass over the files.
    """

    def __init__(self, model: keras.Model, detector: Detector, cache: Cache, progress: Progress):
        """`progress(title, total)` is a context manager that yields a function to call with `advance=` frames done."""
        self.sets = feature_sets(model)
        self.inputs, self.models = model.inputs, dict[tuple[int, ...], keras.Model]()
        fast_blocks.speed_up(keras.Model(model.inputs, self.sets))
        self.cache, self.single, self.progress = cache, detector.input_kind == "frame", progress
        self.frames = model.input_shape[1]
        folders = [f"v{VERSION}-{cache.folder.name}-{digest(one_set(model.inputs, output))}-{detector.feature_dtype}"
                   for output in self.sets]  # fmt: skip
        self.stores = [FeatureStore(cache.root / "features" / name, detector.feature_dtype) for name in folders]

    def of(self, table: pd.DataFrame, views: int = 1, augment: str = "") -> FeatureTable:
        """Return the features of a prepared table's files, one row per frame, for a clip detector one per file, and `views` of
        each: the first is the frame or clip itself, the others are augmented by `augment`."""
        rows = dataset.expand_frames(table, self.single)
        rows = rows.loc[rows.index.repeat(views)].assign(view=np.tile(np.arange(views), len(rows))).reset_index(drop=True)
        return self._gather(rows, augment)

    def of_corrupted(self, table: pd.DataFrame, corruption: str) -> FeatureTable:
        """Return the features of a prepared table's files after a corruption, such as "jpeg(70)", row by row as `of` does."""
        return self._gather(dataset.expand_frames(table, self.single).assign(view=1), corruption)

    def _gather(self, rows: pd.DataFrame, augment: str) -> FeatureTable:
        """Return the features of rows of `expand_frames` with a column `view`; what the store lacks is computed and added."""
        names = [f"{sha}:{frame}" + (f":{view}:{augment}".replace(" ", "") if view else "")
                 for sha, frame, view in zip(rows["sha"], rows["frame"], rows["view"], strict=True)]  # fmt: skip
        progress = silent if all(name in store for store in self.stores for name in names) else self.progress
        with progress("Computing features", len(names) * self.frames) as step:
            add_missing(self.stores, names, lambda sets, places: self._compute(sets, rows.iloc[places], augment),
                        lambda count: step(advance=count * self.frames))  # fmt: skip
        texts, sources = ([*rows[name]] if name in rows else [""] * len(rows) for name in ("text", "source"))
        features = np.concatenate([store.gather(names) for store in self.stores], axis=1)
        return FeatureTable(features, rows["label"].to_numpy(), texts, [*rows["path"]], sources)

    def _compute(self, sets: Sequence[int], rows: pd.DataFrame, augment: str) -> Iterator[list[np.ndarray]]:
        """Yield the rows of each of these sets, batch by batch."""
        if (key := tuple(sets)) not in self.models:
            self.models[key] = keras.Model(self.inputs, [self.sets[number] for number in sets])
        predict = self.models[key].predict_on_batch
        waiting: deque[Future] = deque()
        concurrent = CONCURRENT_BATCHES if backend.is_tensorflow() else 1  # on jax, models change state when they predict
        with ThreadPoolExecutor(concurrent) as pool:  # a single batch leaves cores idle between its steps
            batch = max(1, BATCH // self.frames)
            for clips in dataset.augmented_views(rows.reset_index(drop=True), self.cache, self.single, batch, augment):
                waiting.append(pool.submit(predict, clips.numpy()))
                if len(waiting) > concurrent:
                    yield _as_arrays(waiting.popleft().result())
            yield from (_as_arrays(rows.result()) for rows in waiting)


def _as_arrays(outputs: Any) -> list[np.ndarray]:
    """The outputs of `predict_on_batch`, which returns a single one without a list."""
    return [np.asarray(part, np.float32) for part in (outputs if isinstance(outputs, list | tuple) else [outputs])]


def feature_sets(model: keras.Model) -> list[Any]:
    """Return the outputs (batch, n) whose concatenation is the output of the layer `features`; most detectors have one."""
    layer = model.get_layer("features")
    return list(layer.input) if isinstance(layer, keras.layers.Concatenate) else [layer.output]


def one_set(inputs: list[Any], output: Any) -> keras.Model:
    """Return the model from the inputs to one set of features, without what only other sets need.

    A backbone with several outputs, of which this set is one, is replaced by one with a single output. So the digest of a set
    does not depend on the other sets.
    """
    cast = output._keras_history.operation
    backbone, _, number = cast.input._keras_history if isinstance(cast, keras.layers.Identity) else (None, 0, 0)
    if not isinstance(backbone, keras.Model) or len(backbone.outputs) == 1:
        return keras.Model(inputs, output)
    part = keras.Model(backbone.input, backbone.outputs[number])  # the structure of the inputs counts, too
    arguments = backbone._inbound_nodes[-1].input_tensors
    return keras.Model(inputs, keras.layers.Identity(dtype="float32")(part(*arguments)))


def digest(model: keras.Model) -> str:
    """Return 16 hexadecimal digits of what decides a model's outputs: its layers, their wiring and weights, but no names."""
    sha = hashlib.sha256(json.dumps(_without_names(json.loads(model.to_json())), sort_keys=True).encode())
    for weight in model.weights:
        sha.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).reshape(-1).view(np.uint8).data)
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
