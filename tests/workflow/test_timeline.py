"""The timeline scores the windows that it says, from the pixels of predict, in bounded memory; its video can be played."""

from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import stamped

from tfdetect.artifact import Artifact
from tfdetect.data.media.frames import Fit, to_squares
from tfdetect.data.media.sniff import MediaError
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.errors import UserError
from tfdetect.evaluation.calibration import Calibration
from tfdetect.evaluation.timeline import find_peaks
from tfdetect.pages import timeline as page
from tfdetect.serving.predictor import Predictor
from tfdetect.workflow import overlay, timeline

COUNT, TAKEN = 40, 4


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return stamped.write(tmp_path_factory.mktemp("timeline") / "stamped.mp4", count=COUNT)


@pytest.fixture
def make_predictor(tmp_path):
    """A function that returns a predictor whose score is the mean of the numbers that its frames show."""
    Artifact(tmp_path).saved_model.mkdir()

    def make(kind, fps=None, fit=Fit()):  # noqa: B008
        spec = ClipSpec(TAKEN, stamped.WIDTH, fps=fps, fit=fit)
        predictor = Predictor(Artifact(tmp_path), spec, SimpleNamespace(input_kind=kind, classes=()),
                              calibration=Calibration(0.1, -2, 0.5))  # fmt: skip

        def outputs(clips):
            assert len(clips) <= predictor.batch
            return {"score": np.array([np.mean([stamped.index_of(frame) for frame in clip]) for clip in clips], np.float32)}

        predictor._outputs = outputs
        return predictor

    return make


def test_windows_are_a_fixed_stride_apart_and_reach_the_end():
    times = [k / 25 for k in range(COUNT)]
    windows = timeline.lay_windows(times, TAKEN, None, None, 10)
    starts = [window[0] for window in windows]
    assert starts == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36] and windows[0] == (0, 1, 2, 3) and windows[-1][-1] == COUNT - 1
    assert timeline.lay_windows(times, TAKEN, None, 10, 5)[-2:] == [(24, 27, 30, 33), (30, 33, 36, 39)]
    assert list(timeline.lay_windows(times, 1, None, None, 64)) == [(k,) for k in range(COUNT)]
    uneven = timeline.lay_windows(times, 1, None, None, 7)
    assert uneven[:2] == [(0,), (7,)] and uneven[-1] == (39,) and len(uneven) <= 8
    assert timeline.lay_windows(times, TAKEN, 12.5, None, 100)[3] == (3, 5, 7, 9), "every other of 25 frames a second"
    for short in (3, 4):
        assert timeline.lay_windows(times[:short], TAKEN, None, None, 9) == [tuple(np.rint(np.linspace(0, short - 1, 4)))]


def test_a_clip_detector_scores_a_sliding_window(video, make_predictor):
    predictor, steps, seen = make_predictor("clip"), [], []
    line = timeline.build(predictor, video, COUNT, 10, step=lambda: steps.append(1),
                          on_window=lambda window, clip: seen.append((window, stamped.index_of(clip[0]))), shown=3)  # fmt: skip
    np.testing.assert_allclose(line.scores, [np.mean(window) for window in line.windows])
    np.testing.assert_allclose(line.probabilities, 1 / (1 + np.exp(2 - 0.1 * line.scores)))
    assert (line.stride, line.span, len(steps)) == (4, TAKEN, COUNT) and line.times[-1] == pytest.approx(39 / 25)
    assert [window[0] for window, _ in seen] == [0, 16, 36] and all(window[0] == first for window, first in seen)
    assert line.peaks == [9] and stamped.index_of(line.pictures[9]) == 38, "the middle frame of the highest window"
    assert "window of 4 consecutive frames; the next window begins 4 frames later. The video has 40 " in line.describe()
    assert line.describe().endswith("40 frames in 1.56 s.")
    row = line.as_dict()
    assert row["points"][2] == {"first_frame": 8, "last_frame": 11, "seconds": pytest.approx(0.38), "score": 9.5,
                                "probability": pytest.approx(line.probabilities[2])}  # fmt: skip
    short = timeline.build(predictor, video, COUNT, 10, span=COUNT)
    assert short.scores == pytest.approx(predictor.to_verdict("", predictor.spec.read(video)).score), "the clip that predict sees"


def test_a_run_with_a_frame_rate_has_windows_of_that_rate_unless_told_otherwise(video, make_predictor):
    predictor = make_predictor("clip", fps=12.5)
    line = timeline.build(predictor, video, COUNT, 100)
    assert line.windows[3].tolist() == [3, 5, 7, 9] and line.windows[-1][-1] == COUNT - 1 and line.scores[3] == 6
    assert "window of 7 frames, of which it takes 4" in line.describe()
    assert timeline.build(predictor, video, COUNT, 100, span=10).windows[3].tolist() == [3, 6, 9, 12]


def test_a_frame_detector_scores_single_frames(video, make_predictor):
    predictor = make_predictor("frame")
    line = timeline.build(predictor, video, COUNT)
    np.testing.assert_array_equal(line.scores, np.arange(COUNT))
    media = predictor.spec.read(video)
    assert predictor.to_verdict("", media).score == line.scores[list(media.indices)].mean()
    assert "One point for every frame" in line.describe() and line.stride == 1
    assert "every 8th frame" in timeline.build(predictor, video, COUNT, 6, span=9).describe(), "it has no windows"


def test_the_frames_of_few_windows_are_in_memory(video, make_predictor, monkeypatch):
    most, waiting = [], []
    add, score = timeline._Collector.add, timeline._Scorer.add
    monkeypatch.setattr(timeline._Collector, "add", lambda self, *frame: (add(self, *frame), most.append(
        len(self.kept) + sum(len(media.frames) for scorer in waiting[-1:] for _, media in scorer.full))))  # fmt: skip
    monkeypatch.setattr(timeline._Scorer, "add", lambda self, *clip: (score(self, *clip), waiting.append(self)))
    predictor = make_predictor("clip")
    predictor.batch = 2
    timeline.build(predictor, video, COUNT, 100)
    assert max(most) <= 2 * TAKEN + TAKEN


def test_impossible_timelines_are_refused(video, make_predictor, tmp_path):
    cv2.imwrite(str(tmp_path / "still.png"), stamped.stamped(0))
    with pytest.raises(MediaError, match="the file is an image"):
        timeline.build(make_predictor("frame"), tmp_path / "still.png", 1)
    with pytest.raises(UserError, match="at least 1 point"):
        timeline.build(make_predictor("frame"), video, COUNT, 0)


def test_a_damaged_video_is_scored_where_it_is_intact(make_predictor, tmp_path):
    path = stamped.write(tmp_path / "cut.ts", count=COUNT, g="10")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10 // 188 * 188])
    predictor = make_predictor("frame")
    media = predictor.spec.read(path)
    assert 5 < media.total < COUNT
    line = timeline.build(predictor, path, media.total)
    np.testing.assert_array_equal(line.scores, np.arange(media.total))


def test_peaks_stand_out():
    values = np.array([0, 1, 0, 5, 5, 5, 0, 3, 0, 4.0])
    assert find_peaks(values, values / 10) == [3, 9, 7, 1], "not the middle of the plateau that the first is on"
    assert find_peaks(np.arange(10.0), values / 10)[:2] == [9, 7] and find_peaks(values, np.zeros(10)) == [3]
    low = np.array([0.9, 0.1, 0.13, 0.1])
    assert find_peaks(low, low) == [0], "three hundredths are no peak"


def test_the_chart_shows_every_point_on_hovering_without_a_script(video, make_predictor):
    line = timeline.build(make_predictor("clip"), video, COUNT, 10)
    html = page.section(line, overlay="over<lay.mp4")
    assert html.count("<title>") == html.count("<circle") == 10 and "<script" not in html
    assert "1.50 s, frames 37 to 40: probability 0.852, score 37.500" in html
    assert "called fake from 0.500" in html and "over&lt;lay.mp4" in html and html.count("data:image/jpeg") == 1
    assert page.section(timeline.build(make_predictor("clip"), video, COUNT, 10, span=COUNT)) == "", "one point is no timeline"


def test_the_overlay_plays_in_browsers_and_is_hot_where_the_map_is(video, make_predictor, tmp_path):
    predictor = make_predictor("frame")
    line = timeline.build(predictor, video, COUNT, 10)
    hot = np.zeros((1, stamped.WIDTH, stamped.WIDTH), np.float32)
    cold = hot.copy()
    hot[0, 64:, :32] = 1  # the lower left quarter of the left half, once the square is stretched to the frame
    overlay.write(tmp_path / "overlay.mp4", video, predictor.spec, line, {(0,): cold, (20,): cold, (39,): hot}, "occlusion")
    data = (tmp_path / "overlay.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat"), "the index is in front"
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 25)
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(stream)]
    assert len(frames) == COUNT and frames[0].shape == (128 + overlay.STRIP, 256, 3)
    colour = [np.ptp(frame[:128], axis=-1) for frame in frames]  # frames are grey where the map is 0
    assert colour[10].mean() < 6 and colour[39][72:120, 8:56].mean() > 60 and colour[39][:56].mean() < 12
    assert colour[20][72:120, 8:56].mean() < colour[30][72:120, 8:56].mean() < colour[39][72:120, 8:56].mean(), "mixed in between"


@pytest.mark.parametrize("fit", [Fit(), Fit("shortest_side"), Fit("pad"), Fit("crop", 1), Fit("crop", 5)])
@pytest.mark.parametrize("height, width", [(96, 160), (40, 56)])
def test_a_map_of_the_squares_is_put_back_in_its_place(fit, height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = 255
    heat = to_squares(frame, 64, fit)[..., 0].astype(np.float32)
    back = overlay.on_frame(heat, height, width, fit)
    assert back.shape == (height, width)
    assert back[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4].mean() > 200
    assert back[frame[..., 0] == 0].mean() < 12


def test_faces_are_left_out_where_there_are_none(video, make_predictor, monkeypatch):
    predictor = make_predictor("frame")
    monkeypatch.setattr(ClipSpec, "of_native", lambda self, media: (_ for _ in ()).throw(MediaError("no face found")))
    predictor.spec = ClipSpec(TAKEN, stamped.WIDTH, faces=SimpleNamespace())
    with pytest.raises(MediaError, match="no face in any window"):
        timeline.build(predictor, video, COUNT)
