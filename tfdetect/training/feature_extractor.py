"""The features of a run's files: what the frozen part of its model makes of them, kept in the cache for every later run."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import pandas as pd

from tfdetect import backend
from tfdetect.data.input_pipeline import dataset
from tfdetect.data.input_pipeline.feature_store import Store, complete
from tfdetect.data.prepare.clip_cache import Cache
from tfdetect.detector import Detector, FeatureTable
from tfdetect.models.layers import common

BATCH = 32  # frames of a batch
AT_ONCE = 2  # batches
VERSION = 1  # of how features come about; a change of it makes all of them anew
Progress = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


def silent(what: str, total: int) -> AbstractContextManager[Callable[..., None]]:
    """Progress that nobody sees."""
    return nullcontext(lambda **how: None)


class FeatureExtractor:
    """The outputs of a model's layer `features` for files in the cache."""

    def __init__(self, model: keras.Model, detector: Detector, cache: Cache, progress: Progress):
        """`progress(what, total)` is a context of what is to be called with `advance=` rows done."""
        self.frozen = common.submodel_until(model, "features")
        self.cache, self.single, self.progress = cache, detector.input_kind == "frame", progress
        self.batch = keras.Model(self.frozen.inputs, self.frozen.outputs).predict_on_batch
        dtype = getattr(detector, "store", "float32")
        self.store = Store(cache.root / "features" / f"v{VERSION}-{cache.folder.name}-{digest(self.frozen)}-{dtype}", dtype)

    def of(self, table: pd.DataFrame, views: int = 1, augment: str = "") -> FeatureTable:
        """Rows for all frames of a prepared table's files, `views` of each: the first is the frame itself, others are it through
        `augment`."""
        rows = dataset.expand_frames(table, self.single)
        rows = rows.loc[rows.index.repeat(views)].assign(view=np.tile(np.arange(views), len(rows))).reset_index(drop=True)
        names = [f"{sha}:{frame}" + (f":{view}:{augment}".replace(" ", "") if view else "")
                 for sha, frame, view in zip(rows["sha"], rows["frame"], rows["view"], strict=True)]  # fmt: skip
        with self.progress("Embedding", len(names)) as step:
            complete(self.store, names, lambda places: self._embed(rows.iloc[places], augment), lambda n: step(advance=n))
        texts, sources = ([*rows[name]] if name in rows else [""] * len(rows) for name in ("text", "source"))
        return FeatureTable(self.store.gather(names), rows["label"].to_numpy(), texts, [*rows["path"]], sources)

    def _embed(self, rows, augment):
        waiting: deque[Future] = deque()
        at_once = AT_ONCE if backend.is_tensorflow() else 1  # jax' models change state when they predict
        with ThreadPoolExecutor(at_once) as pool:  # one batch alone leaves processors idle between its steps
            for clips in dataset.views(rows.reset_index(drop=True), self.cache, self.single, BATCH, augment):
                waiting.append(pool.submit(self.batch, clips.numpy()))
                if len(waiting) > at_once:
                    yield np.asarray(waiting.popleft().result(), np.float32)
            yield from (np.asarray(batch.result(), np.float32) for batch in waiting)


def digest(model: keras.Model) -> str:
    """What decides a model's outputs, its layers, their wiring and weights, as 16 hexadecimal digits; names do not count."""
    found = hashlib.sha256(json.dumps(_nameless(json.loads(model.to_json())), sort_keys=True).encode())
    for weight in model.weights:
        found.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).tobytes())
    return found.hexdigest()[:16]


def _nameless(tree: Any, places: Mapping[str, int] = MappingProxyType({})) -> Any:
    """A model's configuration without names, which are numbered anew in each process: what a layer is fed by is told by the
    `places` of those layers in their model."""
    if isinstance(tree, list):
        return [_nameless(value, places) for value in tree]
    if not isinstance(tree, dict) or str(tree.get("class_name")).endswith("DTypePolicy"):  # whose name is a type
        return tree
    if isinstance(layers := tree.get("layers"), list):
        places = {layer["name"]: place for place, layer in enumerate(layers) if "name" in layer}
    wires = {key: _places(tree[key], places) for key in ("keras_history", "input_layers", "output_layers") if key in tree}
    rest = {key: _nameless(value, places) for key, value in tree.items() if key not in ("name", "seed", *wires)}
    return rest | wires


def _places(wires: Any, places: Mapping[str, int]) -> Any:
    """[layer, node, output], or a list or dict of such, with a layer's place for its name."""
    if isinstance(wires, dict):
        return {key: _places(value, places) for key, value in wires.items()}
    return [_places(value, places) for value in wires] if isinstance(wires, list) else places.get(wires, wires)
