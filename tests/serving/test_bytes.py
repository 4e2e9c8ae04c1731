"""serve_bytes gives the score of predict for every image it decodes; an image that it refuses only fails its own row."""

import io
import struct
import zlib

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from in_process import map_here
from PIL import Image

from tfdetect import files, models
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.limits import Limits
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor

CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}
CLIP_SPEC = ClipSpec(3, 24, limits=Limits(pixels=40_000))
WIDTH, HEIGHT = 61, 46


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A predictor and its serve_bytes; the score depends on every pixel and channel."""
    keras.utils.set_random_seed(0)
    artifact = Artifact(tmp_path_factory.mktemp("bytes"))
    clip = keras.Input((1, 24, 24, 3), dtype="uint8")
    model = keras.Model(clip, keras.layers.Dense(1)(keras.layers.Flatten()(keras.ops.cast(clip, "float32") / 255)))
    model.save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    export(models.load(artifact.model), CALIBRATION, Cnn(), artifact.saved_model, CLIP_SPEC)
    predictor = Predictor(artifact, CLIP_SPEC, Cnn())
    return predictor, predictor.model.signatures["serve_bytes"]


def noise_image(seed=0, size=(HEIGHT, WIDTH)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX))


def with_alpha(image):
    """Return a copy with a random alpha channel."""
    image = image.copy()
    image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)))
    return image


def encode(image, kind, **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def oriented(number):
    """Return EXIF data with this orientation."""
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def bmp(bits, rows, palette=b"", height=HEIGHT, header=40, compression=0, masks=b""):
    """Return a BMP file with these encoded rows, from bottom to top; from top to bottom if the height is negative."""
    start = 14 + header + len(palette) + len(masks)
    head = struct.pack("<IHHHH", 12, WIDTH, height, 1, bits) if header == 12 else \
        struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, 0, 0, 0, 0, 0)  # fmt: skip
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + masks + palette + rows


def bmps():
    """Return BMP varieties that Pillow does not write, by name."""
    colours = np.array(noise_image())[..., ::-1]
    alpha = np.concatenate([colours, colours[..., :1]], axis=2)
    sixteen = noise_image().quantize(16)
    palette = np.array(sixteen.getpalette()[:48], np.uint8).reshape(16, 3)[:, ::-1]
    indices = np.pad(np.array(sixteen), ((0, 0), (0, 3)))
    rows = (indices[:, ::2] << 4 | indices[:, 1::2])[::-1].tobytes()
    return {
        "4 bits": bmp(4, rows, np.pad(palette, ((0, 0), (0, 1))).tobytes()),
        "4 bits of OS/2": bmp(4, rows, palette.tobytes(), header=12),
        "32 bits": bmp(32, alpha[::-1].tobytes()),
        "32 bits with masks": bmp(32, alpha[::-1].tobytes(), compression=3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)),
        "24 bits, top row first": bmp(24, np.pad(colours.reshape(HEIGHT, -1), ((0, 0), (0, 1))).tobytes(), height=-HEIGHT),
    }


def with_two_exif_segments(one, other):
    """Insert the EXIF segment of one JPEG after that of another."""
    start = one.index(b"\xff\xe1")
    end = start + 2 + struct.unpack_from(">H", one, start + 2)[0]
    return one[:end] + other[start:end] + one[end:]


def with_jpeg_exif_prefix(png):
    """Prefix the EXIF data of a PNG with the six bytes that only a JPEG should have."""
    at = png.index(b"eXIf")
    length = struct.unpack_from(">I", png, at - 4)[0]
    chunk = b"eXIfExif\0\0" + png[at + 4 : at + 4 + length]
    return png[: at - 4] + struct.pack(">I", length + 6) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[at + 8 + length :]


def readable():
    """Yield (name, encoded image) of everything that must get the score of predict."""
    image = noise_image()
    for number in range(1, 9):
        yield f"JPEG with orientation {number}", encode(image, "JPEG", exif=oriented(number), quality=90)
        yield f"PNG with orientation {number}", encode(image, "PNG", exif=oriented(number))
        yield f"WebP with orientation {number}", encode(image, "WEBP", exif=oriented(number))
        yield f"WebP with alpha and orientation {number}", encode(with_alpha(image), "WEBP", exif=oriented(number), lossless=True)
    first, second = (encode(image, "JPEG", exif=oriented(number), quality=90) for number in (6, 3))
    yield "JPEG with two EXIF orientations", with_two_exif_segments(first, second)
    yield "PNG with JPEG's prefix in its EXIF", with_jpeg_exif_prefix(encode(image, "PNG", exif=oriented(6)))
    for mode in ("L", "LA", "RGBA", "P", "1", "I;16"):
        grey = Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 250) if mode == "I;16" else image.convert(mode)
        yield f"PNG {mode}", encode(grey, "PNG")
    yield "PNG with a transparent index", encode(image.quantize(16), "PNG", transparency=3)
    yield "grey JPEG", encode(image.convert("L"), "JPEG")
    yield "progressive JPEG", encode(image, "JPEG", progressive=True)
    yield "WebP with lossy alpha", encode(with_alpha(image), "WEBP")
    for kind in (image, image.quantize(200), image.convert("L"), image.convert("1"), with_alpha(image)):
        yield f"BMP {kind.mode}", encode(kind, "BMP")
    yield from ((f"BMP of {name}", data) for name, data in bmps().items())
    moving = [noise_image(seed) for seed in range(7)]
    yield "GIF of 7 frames", encode(moving[0], "GIF", save_all=True, append_images=moving[1:], duration=80)
    yield "GIF of one", encode(moving[0], "GIF")


def refused():
    """Yield (encoded image, part of the reason) of everything that is refused."""
    image = noise_image()
    moving = {"save_all": True, "append_images": [noise_image(1), noise_image(2)]}
    yield encode(image, "TIFF"), "not a JPEG"
    yield b"", "not a JPEG"
    yield b"\xff\xd8\xff", "damaged"
    yield encode(image, "JPEG")[:-300], "damaged"
    yield encode(image, "PNG")[:-300], "damaged"
    yield encode(image, "WEBP")[:60], "damaged"
    yield encode(image, "BMP")[:-300], "damaged"
    yield encode(noise_image(size=(150, 300)), "PNG"), "45000 pixels announced, at most 40000"
    large = [noise_image(seed, (100, 200)) for seed in range(3)]
    yield encode(large[0], "GIF", save_all=True, append_images=large[1:]), "000 pixels announced"
    yield encode(image, "WEBP", **moving), "an animated WebP"
    yield encode(image.quantize(64), "GIF", transparency=5), "transparent"
    yield bmp(8, b"\x01\x05" * 3000, b"\0" * 1024, compression=1), "a BMP that is compressed"
    yield encode(image.convert("CMYK"), "JPEG"), "a JPEG in CMYK"


def test_every_readable_image_gets_the_score_of_predict(served, tmp_path, monkeypatch):
    monkeypatch.setattr("tfdetect.serving.decode_ahead.map_unordered", map_here)
    predictor, serve = served
    names, encoded = zip(*readable(), strict=True)
    out = serve(image=tf.constant(encoded))
    paths = [tmp_path / f"{number}.dat" for number in range(len(encoded))]
    for path, data in zip(paths, encoded, strict=True):
        path.write_bytes(data)
    verdicts = list(predictor.predict_files(paths))
    assert [verdict.error for verdict in verdicts] == [None] * len(names)
    assert dict(zip(names, out["error"].numpy(), strict=True)) == dict.fromkeys(names, b"")
    scores = out["score"].numpy()
    differences = {name: abs(verdict.score - score) for name, verdict, score in zip(names, verdicts, scores, strict=True)}
    assert max(differences.values()) < 1e-5, differences
    assert np.ptp(out["score"]) > 0.2, "the images have different scores"
    np.testing.assert_allclose(out["probability"], [verdict.probability for verdict in verdicts], atol=1e-5)


def test_a_refused_image_only_fails_its_own_row(served):
    serve = served[1]
    bad, reasons = zip(*refused(), strict=True)
    good = encode(noise_image(), "PNG")
    out = serve(image=tf.constant([part for each in bad for part in (each, good)]))
    alone = float(serve(image=tf.constant([good]))["score"][0])
    assert np.isnan(out["score"][::2]).all() and np.isnan(out["probability"][::2]).all() and not out["fake"].numpy()[::2].any()
    np.testing.assert_allclose(out["score"][1::2], alone, atol=1e-5)
    for error, reason in zip(out["error"].numpy(), [part for each in reasons for part in (each, "")], strict=True):
        assert reason in error.decode(), (error, reason)
        assert bool(error) == bool(reason)


def test_an_empty_batch_and_a_batch_without_a_readable_image(served):
    serve = served[1]
    assert serve(image=tf.constant([], tf.string))["score"].shape == (0,)
    out = serve(image=tf.constant([b"no", encode(noise_image(), "JPEG")[:-300]]))
    assert np.isnan(out["score"]).all() and all(out["error"].numpy())
