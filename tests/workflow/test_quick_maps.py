"""Heat-maps that nobody asked for are drawn if that is quick."""

from types import SimpleNamespace

import light
import numpy as np

from tfdetect.workflow import quick_maps


def test_a_map_is_drawn_unless_the_model_is_slow(monkeypatch, rng):
    calls = []

    def predict_clips(clips):
        calls.append(len(clips))
        return (clips.mean(axis=(1, 2, 3, 4)),)

    predictor = SimpleNamespace(predict_clips=predict_clips, is_frame_detector=True, spec=SimpleNamespace(frames=2, size=16))
    detector, clip = SimpleNamespace(reconstructs=False, heat_map="occlusion"), rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    monkeypatch.setattr("tfdetect.plots.style.to_png", light.blank_png)
    png, text = quick_maps.map_drawer(predictor, detector)(clip)
    assert png[1:4] == b"PNG" and text.startswith("Hiding the hottest tenth of the map")
    assert sum(calls) - 2 * 2 == quick_maps.PASSES, "without the passes that measure the speed"
    monkeypatch.setattr(quick_maps, "MAX_SECONDS", 0.0)
    draw = quick_maps.map_drawer(predictor, detector)
    calls.clear()
    assert draw(clip) is None and draw(clip) is None and calls == [2, 2], "the speed is measured once"
    predictor.predict_clips = lambda clips: (_ for _ in ()).throw(MemoryError)
    assert quick_maps.map_drawer(predictor, detector)(clip) is None
