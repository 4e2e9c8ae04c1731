"""Heat-maps that nobody asked for, of mistakes and for TensorBoard: by scores alone, and only if that is quick."""

import time
from functools import cache as once
from typing import TYPE_CHECKING

import numpy as np

from tfdetect.detector import Detector
from tfdetect.errors import suppress_out_of_memory
from tfdetect.pages import explanation
from tfdetect.plots import style
from tfdetect.serving.predictor import Predictor
from tfdetect.workflow import explaining
from tfdetect.workflow.mistakes import MadeMap, MapMaker

if TYPE_CHECKING:
    from tfdetect.training.tensorboard import MapDrawer

PASSES = 68  # through the model for a heat-map by occlusion and its check
MAX_SECONDS = 5.0


def map_drawer(predictor: Predictor, detector: Detector) -> "MapDrawer":
    """Return a function from a clip to a PNG of it with its heat-map, and what the check of the map says; see `map_maker`."""
    make = map_maker(predictor, detector)

    def draw(clip: np.ndarray) -> tuple[bytes, str] | None:
        made = make(clip)
        return made and (style.to_png(explanation.figure(*made[:3])), made[3])

    return draw


def map_maker(predictor: Predictor, detector: Detector) -> MapMaker:
    """Return a function from a clip of the run's size (frames, height, width, 3) uint8 to some of its frames, their heat-maps by
    scores alone, the method, and what the check of the maps says; None if that would take longer than MAX_SECONDS, or there is
    not enough memory for it."""
    chosen = explaining.resolve_method("auto", detector)
    maps = explaining.HeatMaps(predictor, explaining.OCCLUSION if chosen in explaining.GRADIENTS else chosen)
    shown = 1 if predictor.is_frame_detector else 4

    @once
    def is_fast() -> bool:
        return PASSES * seconds_per_pass(predictor) <= MAX_SECONDS

    def make(clip: np.ndarray) -> MadeMap | None:
        with suppress_out_of_memory():
            if is_fast():
                found = explaining.explain(maps, clip, shown, areas=False)
                return found.frames, found.heat, found.maps.method, found.result
        return None

    return make


def seconds_per_pass(predictor: Predictor, batch: int = 2) -> float:
    """Return how long the model takes for what it sees at once: a frame or a clip."""
    frames, size = 1 if predictor.is_frame_detector else predictor.spec.frames, predictor.spec.size
    clips = np.zeros((batch, frames, size, size, 3), np.uint8)
    predictor.predict_clips(clips)  # the first call takes longer
    start = time.monotonic()
    predictor.predict_clips(clips)
    return (time.monotonic() - start) / batch
