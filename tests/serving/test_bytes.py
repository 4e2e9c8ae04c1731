"""serve_bytes gives predict's score for what it decodes; what it does not decode costs its own row."""

import io
import struct
import zlib

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfdetect import files, models
from tfdetect.artifact import Artifact
from tfdetect.data.prepare.clip_cache import ClipSpec
from tfdetect.limits import Limits
from tfdetect.models.detectors.cnn import Cnn
from tfdetect.serving.export import export
from tfdetect.serving.predictor import Predictor

CALIBRATION = {"slope": 2.0, "intercept": 0.25, "threshold": 0.5}
VIEW = ClipSpec(3, 24, limits=Limits(pixels=40_000))
WIDE, TALL = 61, 46


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """(predictor, serve_bytes) of a model that tells where a picture is bright, and in which colour."""
    keras.utils.set_random_seed(0)
    artifact = Artifact(tmp_path_factory.mktemp("bytes"))
    clip = keras.Input((1, 24, 24, 3), dtype="uint8")
    model = keras.Model(clip, keras.layers.Dense(1)(keras.layers.Flatten()(keras.ops.cast(clip, "float32") / 255)))
    model.save(artifact.model)
    files.write_json(artifact.calibration, CALIBRATION)
    export(models.load(artifact.model), CALIBRATION, Cnn(), artifact.saved_model, VIEW)
    predictor = Predictor(artifact, VIEW, Cnn())
    return predictor, predictor.model.signatures["serve_bytes"]


def picture(seed=0, size=(TALL, WIDE)):
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX))


def clear(image):
    """With an alpha channel."""
    image = image.copy()
    image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (TALL, WIDE), np.uint8)))
    return image


def saved(image, kind, **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def turned(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def bmp(bits, rows, palette=b"", height=TALL, header=40, compression=0, masks=b""):
    """A BMP of encoded rows, the first of which is the lowest; a negative height means the upper one."""
    start = 14 + header + len(palette) + len(masks)
    head = struct.pack("<IHHHH", 12, WIDE, height, 1, bits) if header == 12 else \
        struct.pack("<IiiHHIIiiII", 40, WIDE, height, 1, bits, compression, 0, 0, 0, 0, 0)  # fmt: skip
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + head + masks + palette + rows


def bmps():
    """By name, what Pillow does not write."""
    colours = np.array(picture())[..., ::-1]
    alpha = np.concatenate([colours, colours[..., :1]], axis=2)
    sixteen = picture().quantize(16)
    palette = np.array(sixteen.getpalette()[:48], np.uint8).reshape(16, 3)[:, ::-1]
    indices = np.pad(np.array(sixteen), ((0, 0), (0, 3)))
    rows = (indices[:, ::2] << 4 | indices[:, 1::2])[::-1].tobytes()
    return {
        "4 bits": bmp(4, rows, np.pad(palette, ((0, 0), (0, 1))).tobytes()),
        "4 bits of OS/2": bmp(4, rows, palette.tobytes(), header=12),
        "32 bits": bmp(32, alpha[::-1].tobytes()),
        "32 bits with masks": bmp(32, alpha[::-1].tobytes(), compression=3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)),
        "24 bits, upper row first": bmp(24, np.pad(colours.reshape(TALL, -1), ((0, 0), (0, 1))).tobytes(), height=-TALL),
    }


def twice(one, other):
    """A JPEG with the EXIF segment of another behind its own."""
    start = one.index(b"\xff\xe1")
    end = start + 2 + struct.unpack_from(">H", one, start + 2)[0]
    return one[:end] + other[start:end] + one[end:]


def prefixed(png):
    """The same with six bytes before the EXIF of a PNG, where they do not belong."""
    at = png.index(b"eXIf")
    length = struct.unpack_from(">I", png, at - 4)[0]
    chunk = b"eXIfExif\0\0" + png[at + 4 : at + 4 + length]
    return png[: at - 4] + struct.pack(">I", length + 6) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[at + 8 + length :]


def readable():
    """(name, encoded) of everything that must come out as predict has it."""
    image = picture()
    for number in range(1, 9):
        yield f"JPEG turned {number}", saved(image, "JPEG", exif=turned(number), quality=90)
        yield f"PNG turned {number}", saved(image, "PNG", exif=turned(number))
        yield f"WebP turned {number}", saved(image, "WEBP", exif=turned(number))
        yield f"WebP with alpha turned {number}", saved(clear(image), "WEBP", exif=turned(number), lossless=True)
    yield "JPEG turned by the first of two segments", twice(*(saved(image, "JPEG", exif=turned(n), quality=90) for n in (6, 3)))
    yield "PNG with JPEG's prefix in its EXIF", prefixed(saved(image, "PNG", exif=turned(6)))
    for mode in ("L", "LA", "RGBA", "P", "1", "I;16"):
        grey = Image.fromarray(np.array(image.convert("L")).astype(np.uint16) * 250) if mode == "I;16" else image.convert(mode)
        yield f"PNG {mode}", saved(grey, "PNG")
    yield "PNG with a transparent index", saved(image.quantize(16), "PNG", transparency=3)
    yield "grey JPEG", saved(image.convert("L"), "JPEG")
    yield "progressive JPEG", saved(image, "JPEG", progressive=True)
    yield "WebP with lossy alpha", saved(clear(image), "WEBP")
    for kind in (image, image.quantize(200), image.convert("L"), image.convert("1"), clear(image)):
        yield f"BMP {kind.mode}", saved(kind, "BMP")
    yield from ((f"BMP of {name}", data) for name, data in bmps().items())
    moving = [picture(seed) for seed in range(7)]
    yield "GIF of 7 frames", saved(moving[0], "GIF", save_all=True, append_images=moving[1:], duration=80)
    yield "GIF of one", saved(moving[0], "GIF")


def refused():
    """(encoded, why) of what costs its row."""
    image = picture()
    moving = {"save_all": True, "append_images": [picture(1), picture(2)]}
    yield saved(image, "TIFF"), "no JPEG"
    yield b"", "no JPEG"
    yield b"\xff\xd8\xff", "damaged"
    yield saved(image, "JPEG")[:-300], "damaged"
    yield saved(image, "PNG")[:-300], "damaged"
    yield saved(image, "WEBP")[:60], "damaged"
    yield saved(image, "BMP")[:-300], "damaged"
    yield saved(picture(size=(150, 300)), "PNG"), "45000 pixels announced, at most 40000"
    large = [picture(seed, (100, 200)) for seed in range(3)]
    yield saved(large[0], "GIF", save_all=True, append_images=large[1:]), "000 pixels announced"
    yield saved(image, "WEBP", **moving), "an animated WebP"
    yield saved(image.quantize(64), "GIF", transparency=5), "transparent"
    yield bmp(8, b"\x01\x05" * 3000, b"\0" * 1024, compression=1), "a BMP that is compressed"


def test_every_readable_image_has_predicts_score(judges, tmp_path):
    predictor, serve = judges
    names, encoded = zip(*readable(), strict=True)
    out = serve(image=tf.constant(encoded))
    paths = [tmp_path / f"{number}.dat" for number in range(len(encoded))]
    for path, data in zip(paths, encoded, strict=True):
        path.write_bytes(data)
    verdicts = list(predictor.predict_files(paths))
    assert [verdict.error for verdict in verdicts] == [None] * len(names)
    assert dict(zip(names, out["error"].numpy(), strict=True)) == dict.fromkeys(names, b"")
    apart = {name: abs(verdict.score - score) for name, verdict, score in zip(names, verdicts, out["score"].numpy(), strict=True)}
    assert max(apart.values()) < 0.01, apart
    assert np.ptp(out["score"]) > 0.2, "the model tells the pictures apart"
    np.testing.assert_allclose(out["probability"], [verdict.probability for verdict in verdicts], atol=5e-3)


def test_what_is_refused_costs_its_own_row(judges):
    serve = judges[1]
    bad, why = zip(*refused(), strict=True)
    good = saved(picture(), "PNG")
    out = serve(image=tf.constant([part for each in bad for part in (each, good)]))
    alone = float(serve(image=tf.constant([good]))["score"][0])
    assert np.isnan(out["score"][::2]).all() and np.isnan(out["probability"][::2]).all() and not out["fake"].numpy()[::2].any()
    np.testing.assert_allclose(out["score"][1::2], alone, atol=1e-5)
    for sentence, words in zip(out["error"].numpy(), [part for each in why for part in (each, "")], strict=True):
        assert sentence.decode().startswith(words) or words in sentence.decode(), (sentence, words)
        assert bool(sentence) == bool(words)


def test_nothing_and_nothing_good(judges):
    serve = judges[1]
    assert serve(image=tf.constant([], tf.string))["score"].shape == (0,)
    out = serve(image=tf.constant([b"no", saved(picture(), "JPEG")[:-300]]))
    assert np.isnan(out["score"]).all() and all(out["error"].numpy())
