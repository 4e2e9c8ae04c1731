"""Each corruption, eagerly and in tf.data: its effect on pixels and labels, and its reproducibility."""

import dataclasses
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage

from tfdetect import corruption_spec
from tfdetect.data.input_pipeline import codecs, corruptions
from tfdetect.data.input_pipeline.corruptions import parse

ROOT = Path(__file__).parents[3]
SAMPLES = ["flip", "jpeg(20,95)", "webp(20,95)", "avif(20,95)", "video(18,40)", "h264(18,40)", "hevc(18,40)", "blur(0.5,4)",
           "resize(0.2,0.9)", "side(10,40)", "max_side(10,40)", "crop(0.3,0.9)", "square_crop(0.3,0.9)", "noise(3,30)",
           "brightness(-40,40)", "contrast(0.5,1.5)", "cutout(0.1,0.6)", "grid_mask(0.2,0.7)", "posterize(1,7)",
           "solarize(0,200)", "equalize(p=0.5)",
           "autocontrast(p=0.5)", "saturation(0,3)", "hue(-90,90)", "sharpness(0,4)", "mixup(0.1,0.5)", "cutmix(0.1,0.5)",
           "fourier_mix(0.1,0.5)", "selfblend(0.2,1)", "sbi(p=0.9)"]  # fmt: skip
FRAME_DEPENDENT = ("noise", "video", "h264", "hevc")  # frames of one clip differ
RESULTS = {"flip": 2, "equalize": 2, "autocontrast": 2, "posterize": 5}  # of many draws for one clip; at least 9 by default


@pytest.fixture(scope="module")
def clips():
    """Return clips (6, 3, 50, 61, 3) uint8 with smooth coloured shapes and grey grain; the sides are neither even nor equal."""
    rng = np.random.default_rng(0)
    grey, colour = (ndimage.gaussian_filter(rng.normal(size=(6, 3, 50, 61, n)), (0, 1, 4, 4, 0)) for n in (1, 3))
    return np.clip(128 + 600 * grey + 300 * colour + rng.normal(0, 4, grey.shape), 9, 249).round().astype(np.uint8)


LABELS = np.float32([[0], [1], [0], [1], [0], [0]])


def corrupt(text, clips, labels=LABELS, seed=(3, 4)):
    return tuple(part.numpy() for part in parse(text)(clips, labels, tf.constant(seed)))


def max_difference(ours, theirs):
    """Return the largest difference in levels."""
    return np.abs(ours.astype(int) - theirs).max()


def test_the_samples_cover_all_corruptions():
    assert [str(parse(text)).split("(")[0] for text in SAMPLES] == [name for name in corruption_spec.CORRUPTIONS if name != "fps"]
    assert set(corruptions.FUNCTIONS) | set(corruptions.MIXES) | {"sbi", "fps"} == set(corruption_spec.CORRUPTIONS)


@pytest.mark.parametrize("text", [*SAMPLES, "flip|blur(0,3,p=0.5)|jpeg(30,100,p=0.5)|mixup(0,0.4)|crop(0.5,1,p=0.3)"])
def test_results_are_the_same_eagerly_and_in_tf_data(clips, text):
    chain = parse(text)
    pixels, labels = corrupt(text, clips)
    data = tf.data.Dataset.from_tensors((clips, LABELS)).map(lambda *batch: chain(*batch, tf.constant([3, 4])))
    there, others = next(iter(data))
    assert data.element_spec[0].shape == clips.shape and pixels.dtype == np.uint8 and labels.dtype == np.float32
    assert np.array_equal(pixels, there) and np.array_equal(labels, others)
    unknown = tf.TensorSpec([None, None, None, None, 3], tf.uint8), tf.TensorSpec([None, 1]), tf.TensorSpec([2], tf.int32)
    assert np.array_equal(pixels, tf.function(chain.__call__, unknown)(clips, LABELS, tf.constant([3, 4]))[0])


@pytest.mark.parametrize("text", SAMPLES)
def test_the_seed_determines_the_result(clips, text):
    first, again, other = (corrupt(text, clips, seed=seed)[0] for seed in ((3, 4), (3, 4), (3, 5)))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first, clips)


@pytest.mark.parametrize("text", SAMPLES)
def test_each_clip_has_a_draw_that_its_frames_share(clips, text):
    one = np.repeat(clips[:1, :1], 3, axis=1)
    batch = np.repeat(one, 16, axis=0)
    if text.startswith(tuple(corruptions.MIXES)):
        batch[1::2] = 255 - batch[1::2]
    after, _ = corrupt(text, batch, np.zeros((16, 1), np.float32))
    kinds = {clip.tobytes() for clip in after}
    assert len(kinds) >= RESULTS.get(text.split("(")[0], 9)
    if not text.startswith(FRAME_DEPENDENT):
        assert (after == after[:, :1]).all()


@pytest.mark.parametrize("text", ["blur(0)", "resize(1)", "side(61)", "max_side(61)", "max_side(99)", "crop(1)", "noise(0)",
                                  "brightness(0)", "contrast(1)", "cutout(0)", "grid_mask(0)",
                                  "posterize(8)", "solarize(256)", "saturation(1)", "hue(0)", "sharpness(1)", "mixup(0)",
                                  "cutmix(0)", "fourier_mix(0)", "",
                                  *(text.split("(")[0] for text in SAMPLES)])  # fmt: skip
def test_neutral_settings_change_nothing(clips, text):
    """A bare name stands for its sample with p=0."""
    named = [sample for sample in SAMPLES if text and sample.split("(")[0] == text]
    text = str(dataclasses.replace(parse(named[0]).steps[0], p=0)) if named else text
    pixels, labels = corrupt(text, clips)
    assert np.array_equal(pixels, clips) and np.array_equal(labels, LABELS)


@pytest.mark.parametrize("text, maximum, mean", [("jpeg(100)", 20, 2), ("webp(100)", 20, 2.5), ("avif(100)", 20, 2.5),
                                                 ("h264(0)", 20, 2.5), ("hevc(0)", 20, 2.5)])  # fmt: skip
def test_the_best_quality_is_nearly_neutral(clips, text, maximum, mean):
    """The remaining difference is the chroma at half the resolution."""
    pixels, _ = corrupt(text, clips)
    assert max_difference(pixels, clips) <= maximum and np.abs(pixels.astype(int) - clips).mean() <= mean


@pytest.mark.parametrize("text", ["jpeg(30)", "webp(30)", "avif(30)", "video(35)", "hevc(35)",
                                  "blur(3)", "resize(0.3)", "noise(10)", "contrast(0.5)"])
def test_images_keep_their_brightness(clips, text):
    """A step that mistakes 0..255 for 0..1 would turn them white, black or grey."""
    pixels, _ = corrupt(text, clips)
    assert np.abs(pixels.mean(axis=(1, 2, 3)) - clips.mean(axis=(1, 2, 3))).max() < 3
    soft = pixels.std(axis=(2, 3)).mean() / clips.std(axis=(2, 3)).mean()
    assert 0.4 < soft < 1.2, "neither flattened nor exaggerated"


def test_jpeg_matches_opencv(clips):
    for quality in (5, 37, 80, 100):
        data = [cv2.imencode(".jpg", clip[1, ..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for clip in clips]
        expected = np.stack([cv2.imdecode(one, cv2.IMREAD_COLOR)[..., ::-1] for one in data])
        assert max_difference(corrupt(f"jpeg({quality})", clips)[0][:, 1], expected) == 0


def test_webp_matches_pillow(clips):
    for quality in (5, 60):
        memory = io.BytesIO()
        Image.fromarray(clips[2, 0]).save(memory, "webp", quality=quality)
        assert max_difference(corrupt(f"webp({quality})", clips)[0][2, 0], np.asarray(Image.open(memory).convert("RGB"))) == 0


@pytest.mark.parametrize("sigma", [0.4, 1.1, 3])
def test_blur_is_a_gaussian(clips, sigma):
    expected = ndimage.gaussian_filter(clips.astype(float), (0, 0, sigma, sigma, 0), mode="mirror")
    assert max_difference(corrupt(f"blur({sigma})", clips)[0], expected.round()) <= 1


@pytest.mark.parametrize("scale, small", [(0.5, (30, 25)), (0.1, (6, 5))])
def test_resize_matches_opencv(clips, scale, small):
    down = [cv2.resize(clip[0], small, interpolation=cv2.INTER_AREA).astype(np.float32) for clip in clips]
    expected = np.stack([cv2.resize(one, (61, 50)) for one in down])  # on integers, OpenCV rounds intermediate results
    assert max_difference(corrupt(f"resize({scale})", clips)[0][:, 0], expected) <= 1.5, "a half may be rounded either way, twice"


def test_brightness_and_contrast_match_tf_image(clips):
    brighter = tf.image.adjust_brightness(tf.cast(clips, tf.float32), 17.0)
    assert max_difference(corrupt("brightness(17)", clips)[0], np.clip(brighter, 0, 255)) == 0
    still = clips[:, :1]
    stronger = np.clip(tf.image.adjust_contrast(tf.cast(still, tf.float32), 1.4), 0, 255).round()
    assert max_difference(corrupt("contrast(1.4)", still)[0], stronger) <= 1


def test_crop_shows_a_window_without_a_border():
    plain = np.full((64, 1, 40, 40, 3), 200, np.uint8)
    assert (corrupt("crop(0.1,1)", plain, np.zeros((64, 1), np.float32))[0] == 200).all()
    ramp = np.broadcast_to(np.arange(0, 240, 3, np.uint8)[:, None, None], (32, 1, 80, 80, 3))
    after = corrupt("crop(0.5)", ramp, np.zeros((32, 1), np.float32))[0].astype(int)
    rises = after[:, 0, -1, 0, 0] - after[:, 0, 0, 0, 0]
    assert np.abs(rises - 237 / 2).max() <= 1 and np.ptp(after[:, 0, 0, 0, 0]) > 60


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_a_crop_at_the_border_has_no_black_line(monkeypatch, draw):
    monkeypatch.setattr(corruptions, "uniform", lambda seed, shape: tf.fill(shape, draw))
    plain, values = tf.fill((500, 1, 37, 53, 3), tf.constant(200, tf.uint8)), tf.linspace(0.1, 1.0, 500)
    assert (corruptions.crop(plain, values, None).numpy() == 200).all()


def test_noise_has_its_strength_and_differs_between_frames():
    grey = np.full((2, 2, 64, 64, 3), 128, np.uint8)
    after = corrupt("noise(12)", grey, LABELS[:2])[0] - 128.0
    assert after.std(axis=(2, 3)) == pytest.approx(12, rel=0.05) and np.abs(after.mean(axis=(2, 3))).max() < 0.8
    assert abs(np.corrcoef(after[0, 0].ravel(), after[0, 1].ravel())[0, 1]) < 0.05


def test_cutout_covers_a_window_anywhere():
    white = np.full((400, 2, 20, 30, 3), 255, np.uint8)
    covered = corrupt("cutout(0.8)", white, np.zeros((400, 1), np.float32))[0] != 255
    assert (covered.sum(axis=(2, 3, 4)) == 16 * 24 * 3).all()
    assert covered.any(axis=0).all(), "including the corners"
    assert (corrupt("cutout(1)", white[:1], LABELS[:1])[0] == corruptions.CUTOUT_LEVEL).all()


@pytest.mark.parametrize("frames, height, width", [(1, 16, 16), (16, 31, 46)])
def test_video_keeps_frames_order_and_shape(frames, height, width):
    times = np.arange(frames, dtype=np.float32)[:, None, None, None]
    moving = np.broadcast_to(20 + 12 * times, (2, frames, height, width, 3)).astype(np.uint8)
    after, _ = corrupt("video(18)", moving, LABELS[:2])
    assert after.shape == moving.shape and max_difference(after, moving) <= 6


def test_video_is_deterministic(clips):
    """With its macroblock tree, x264 is not."""
    wide = np.pad(clips[0], ((0, 0), (0, 14), (0, 3), (0, 0)), "reflect")
    assert len({codecs.video("h264", wide, 18).tobytes() for _ in range(30)}) == 1


def test_a_worse_rate_factor_changes_a_video_more(clips):
    errors = [np.abs(corrupt(f"video({crf})", clips)[0].astype(int) - clips).mean() for crf in (10, 25, 40, 51)]
    assert errors == sorted(errors) and errors[-1] > 2 * errors[0]


@pytest.mark.parametrize("name", corruptions.MIXES)
def test_labels_are_mixed_like_images(name):
    labels = (np.arange(16) % 2).astype(np.float32)[:, None]
    plain = np.broadcast_to(200 * labels[:, :, None, None, None], (16, 2, 9, 12, 3)).astype(np.uint8)
    pixels, soft = corrupt(f"{name}(0.1,0.5)", plain, labels)
    assert pixels.mean(axis=(1, 2, 3, 4)) == pytest.approx(200 * soft[:, 0], abs=0.51), "exactly the area that is covered"
    assert (pixels[soft[:, 0] == 0.5] == 100).all() if name == "mixup" else set(np.unique(pixels)) == {0, 200}
    assert ((soft > 0) & (soft < 1)).sum() > 4 and soft[labels == 0].max() <= 0.51


def test_selfblend_makes_fakes_of_reals_only(clips):
    pixels, labels = corrupt("selfblend(1)", clips)
    assert (labels == 1).all() and np.array_equal(pixels[LABELS[:, 0] == 1], clips[LABELS[:, 0] == 1])
    for before, after in zip(clips[LABELS[:, 0] == 0], pixels[LABELS[:, 0] == 0], strict=True):
        assert 0.1 < np.abs(after.astype(int) - before).mean() < 20, "another image of the same content"
    many, labels = corrupt("selfblend(0.5,1,p=0.5)", np.repeat(clips[:1], 64, axis=0), np.zeros((64, 1), np.float32))
    changed = (many != clips[0]).any(axis=(1, 2, 3, 4))
    assert 16 < changed.sum() < 48 and np.array_equal(changed, labels[:, 0] == 1)


def test_the_probability_is_respected(clips):
    many = np.repeat(clips[:1], 400, axis=0)
    changed = (corrupt("brightness(30,p=0.25)", many, np.zeros((400, 1), np.float32))[0] != many).any(axis=(1, 2, 3, 4))
    assert 70 < changed.sum() < 130


def test_draws_are_uniform_and_include_both_bounds():
    black = np.zeros((2000, 1, 1, 1, 3), np.uint8)
    drawn = corrupt("brightness(10,20)", black, np.zeros((2000, 1), np.float32))[0][:, 0, 0, 0, 0]
    assert drawn.min() == 10 and drawn.max() == 20 and drawn.mean() == pytest.approx(15, abs=0.3)
    step = corruption_spec.parse("jpeg(30,32)").steps[0]
    integers = corruptions.scale_draws(step, tf.linspace(0.0, 1.0, 3000)).numpy()
    assert [round((integers == value).mean(), 2) for value in (30, 31, 32)] == [0.33, 0.33, 0.33]


def test_equal_steps_have_separate_draws(clips):
    twice = corrupt("flip|flip", np.repeat(clips[:1], 64, axis=0), np.zeros((64, 1), np.float32))[0]
    assert 16 < (twice != clips[0]).any(axis=(1, 2, 3, 4)).sum() < 48
