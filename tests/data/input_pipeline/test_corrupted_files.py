"""Corruptions of whole files: the clips are those of the files that a user would have made."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from tfdetect.data.equalise import Plan
from tfdetect.data.input_pipeline import corrupted_files, corruptions, native
from tfdetect.data.input_pipeline.corrupted_files import ClipMaker, FileCorruption
from tfdetect.data.media import encode, faces
from tfdetect.data.media.faces import FaceSettings
from tfdetect.data.media.frames import Fit, resize_to
from tfdetect.data.media.read import digest, read_media
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.data.worker_pool import WorkerFailure

SPEC = ClipSpec(4, 24)
NEUTRAL = ("", "blur(0)", "resize(1)", "side(60)", "max_side(99)", "crop(1)", "noise(0)|brightness(0)", "jpeg(9,p=0)")


def smooth(count, height=44, width=60):
    """Return frames (count, height, width, 3) uint8 of coloured waves that move."""
    t, y, x = np.mgrid[:count, :height, :width].astype(np.float32)
    waves = [np.sin(x / (5 + c) + t / 3) + np.cos(y / (7 - c) - t / 5) for c in range(3)]
    return np.stack([128 + 55 * wave for wave in waves], -1).round().astype(np.uint8)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(smooth(1)[0]).save(path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    path.write_bytes(encode.encode_video(smooth(20), Fraction(20), "h264", 10))
    return path


def clips(path, *texts, spec=SPEC, **options):
    """Return the results of a file after each corruption."""
    is_video = path.suffix == ".mp4"
    file = FileCorruption(str(path), digest(path), texts, is_video, 20 if is_video else 1)
    return ClipMaker(spec, path.parent, **options)(file)


def pixels(path, *texts, spec=SPEC):
    return [media.frames for media in clips(path, *texts, spec=spec)]


@pytest.mark.parametrize("spec", [SPEC, ClipSpec(3, 16, fit=Fit("crop", 4)), ClipSpec(1, 70, fit=Fit("pad")),
                                  ClipSpec(8, 24, fps=4.0)])  # fmt: skip
def test_a_corruption_of_strength_zero_changes_nothing(picture, video, spec):
    for path in (picture, video):
        unchanged = spec.read(path).frames
        assert all(np.array_equal(each, unchanged) for each in pixels(path, *NEUTRAL, spec=spec))
    assert np.array_equal(pixels(video, "fps(240)", spec=spec)[0], unchanged), "written without loss"


@pytest.mark.parametrize("kind, options", [("jpeg", {}), ("webp", {"method": 4}), ("avif", {})])
def test_a_picture_is_compressed_as_if_it_were_saved_again(picture, tmp_path, kind, options):
    Image.open(picture).save(tmp_path / f"saved.{kind}", quality=50, **options)
    [ours] = pixels(picture, f"{kind}(50)")
    saved = SPEC.read(tmp_path / f"saved.{kind}").frames.astype(int)
    assert np.abs(ours - saved).max() <= (0 if kind != "webp" else 3), "OpenCV and Pillow may use different libwebp"
    assert not np.array_equal(ours, SPEC.read(picture).frames)


def test_a_resized_or_cropped_picture_keeps_its_new_size(picture, tmp_path):
    small = resize_to(smooth(1)[0], 22, 30)
    Image.fromarray(small).save(tmp_path / "small.png")
    halved, thirty, at_most, beyond = clips(picture, "resize(0.5)", "side(30)", "max_side(30)", "side(90)")
    expected = SPEC.read(tmp_path / "small.png")
    assert all(np.array_equal(each.frames, expected.frames) for each in (halved, thirty, at_most))
    assert not np.array_equal(beyond.frames, expected.frames)
    whole, spec = smooth(1)[0], ClipSpec(1, 11, fit=Fit("crop"))
    [centre] = pixels(picture, "crop(0.25)", spec=spec)  # 11 x 15, whose centre of 11 x 11 starts at 0
    windows = np.lib.stride_tricks.sliding_window_view(whole, (11, 11, 3))[:, :, 0]
    assert (windows == centre[0]).all((2, 3, 4)).any(), "a window of the picture, not enlarged"
    [square] = pixels(picture, "square_crop(0.25)", spec=spec)
    assert (windows == square[0]).all((2, 3, 4)).any() and not np.array_equal(square, centre), "a quarter of the 44 pixels"


def test_draws_depend_on_the_file_and_not_on_the_other_corruptions(picture):
    first, second = pixels(picture, "blur(2)", "crop(0.5)|noise(9)")[1], pixels(picture, "crop(0.5)|noise(9)")[0]
    assert np.array_equal(first, second)
    frames = smooth(1)
    steps = list(enumerate(corruptions.parse("crop(0.5)").steps))
    found = {native.corrupt(steps, frames, (seed, 0)).tobytes() for seed in range(8)}
    assert len(found) >= 7
    values = [native.draw(corruptions.parse("jpeg(65,100)").steps[0], (seed, 0))[0] for seed in range(400)]
    assert {65, 100} <= set(values) <= set(range(65, 101)) and abs(np.mean(values) - 82.5) < 2


def test_same_size_steps_are_those_of_clips(picture):
    frames, text = smooth(1), "jpeg(40)|noise(5)|contrast(0.6)"
    expected = corruptions.parse(text)(frames[None], np.zeros((1, 1)), np.array([5, 0]))[0].numpy()[0]
    steps = list(enumerate(corruptions.parse(text.replace("|noise(5)", "|blur(0)")).steps))
    without = corruptions.parse(text.replace("|noise(5)", "|blur(0)"))(frames[None], np.zeros((1, 1)), np.array([5, 0]))[0]
    assert np.array_equal(native.corrupt(steps, frames, (5, 0)), without.numpy()[0])
    noisy = native.corrupt(list(enumerate(corruptions.parse(text).steps)), frames, (5, 0))
    assert abs(noisy.std() - expected.std()) < 1 and not np.array_equal(noisy, without.numpy()[0])


def test_noise_differs_between_the_frames_of_a_video_and_a_crop_does_not():
    still = np.repeat(smooth(1), 2, 0)[:1]
    for text, same in (("noise(9)", False), ("crop(0.5)", True), ("cutout(0.5)", True)):
        steps = list(enumerate(corruptions.parse(text).steps))
        assert np.array_equal(native.corrupt(steps, still, (1, 0), 0), native.corrupt(steps, still, (1, 0), 7)) is same


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_encoding_never_fails(codec):
    """FFmpeg's MP4 writer refused most HEVC streams, at random."""
    encoded = [encode.encode_video(smooth(1), 25, codec, crf) for crf in range(10, 50)]
    assert len(encoded[0]) > len(encoded[-1]) > 0


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_video_is_encoded_as_a_whole(video, tmp_path, codec):
    frames = read_media(video, 20).frames
    (tmp_path / "again.mp4").write_bytes(encode.encode_video(frames, Fraction(20), codec, 35))
    once, twice, small = pixels(video, f"{codec}(35)", f"{codec}(35)|{codec}(35)", f"resize(0.5)|{codec}(35)")
    assert np.array_equal(once, SPEC.read(tmp_path / "again.mp4").frames)
    (tmp_path / "twice.mp4").write_bytes(
        encode.encode_video(read_media(tmp_path / "again.mp4", 20).frames, Fraction(20), codec, 35))  # fmt: skip
    assert np.array_equal(twice, SPEC.read(tmp_path / "twice.mp4").frames) and not np.array_equal(once, twice)
    halves = np.stack([resize_to(frame, 22, 30) for frame in frames])
    (tmp_path / "small.mp4").write_bytes(encode.encode_video(halves, Fraction(20), codec, 35))
    assert np.array_equal(small, SPEC.read(tmp_path / "small.mp4").frames)


def test_a_lower_frame_rate_drops_frames(video):
    spec = ClipSpec(10, 24)
    [half] = clips(video, "fps(10)", spec=spec)
    every = read_media(video, 20, size=24).frames
    assert (half.total, half.note) == (10, "") and np.array_equal(half.frames, every[::2])
    [third] = clips(video, "fps(15)", spec=replace(spec, frames=15))
    assert third.total == 15


def test_many_encoders_read_the_video_in_several_passes(video, monkeypatch):
    texts = [f"h264({crf})" for crf in (20, 25, 30)]
    together = pixels(video, *texts)
    monkeypatch.setattr(corrupted_files, "ENCODERS", 1)
    assert all(map(np.array_equal, together, pixels(video, *texts)))


def test_faces_are_looked_for_in_the_corrupted_file(video, monkeypatch, tmp_path):
    def brightest(frame, settings):
        """Find a face in any frame that is not black."""
        return np.array([[10.0, 8, 20, 20, 0.9, *[15.0] * 10]]) if frame.max() > 20 else np.zeros((0, 15))

    monkeypatch.setattr(faces, "detect", brightest)
    spec = ClipSpec(4, 16, faces=FaceSettings(tmp_path / "yunet.onnx", "0" * 64))
    unchanged, dark = clips(video, "", "brightness(-255)", spec=spec)
    assert np.array_equal(unchanged.frames, spec.read(video).frames)
    assert isinstance(dark, WorkerFailure) and dark.reason.startswith("no face found")


def test_a_detector_of_equalised_files_gets_the_corrupted_file_equalised(picture, video):
    for path, plan in ((picture, Plan(32, 70, 0.0, 0)), (video, Plan(32, 70, 20.0, 12))):
        spec = ClipSpec(4, 24, plan=plan)
        unchanged, bright = pixels(path, "", "brightness(20)", spec=spec)
        assert np.array_equal(unchanged, spec.read(path).frames)
        assert 15 < (bright.astype(int) - unchanged).mean() < 21


def test_a_file_that_cannot_be_read_has_a_reason(picture, video, tmp_path):
    gone = FileCorruption(str(tmp_path / "gone.png"), "0" * 64, ("blur(1)", "jpeg(9)"))
    assert all(isinstance(each, WorkerFailure) and "No such file" in each.reason for each in ClipMaker(SPEC, tmp_path)(gone))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:300])
    assert all(isinstance(each, WorkerFailure) for each in clips(broken, "h264(20)", "blur(1)"))
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize("text", ["h264(23)", "hevc(28)"])
def test_quick_presets_encode_the_same_frames_about_as_well(video, text):
    """As much noise as the slower presets leave, and as often."""
    original, slow, quick = (found.frames.astype(float) for found in (SPEC.read(str(video)), *clips(video, text),
                                                                      *clips(video, text, quick=True)))  # fmt: skip
    noise = [np.abs(copy - original).mean() for copy in (slow, quick)]
    assert 0 < noise[1] < 1.6 * noise[0] + 0.5 and not np.array_equal(slow, quick)


def test_a_plugin_is_loaded_by_the_worker(picture, tmp_path):
    from tfdetect import corruption_spec, plugins

    plugin = tmp_path / "inverted.py"
    plugin.write_text("from tfdetect.corruption_spec import Corruption, register\n@register('invert', Corruption())\n"
                      "def invert(clips, values, seed):\n    return 255 - clips\n")  # fmt: skip
    try:
        [inverted] = clips(picture, "invert", plugins=(plugin,))
        assert plugin in plugins.loaded_files()
        frame = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
        assert np.array_equal(inverted.frames[0], resize_to(255 - frame, 24, 24))
    finally:
        corruption_spec.CORRUPTIONS.pop("invert", None)
        corruption_spec.REGISTERED.pop("invert", None)
