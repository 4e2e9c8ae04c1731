"""Encoded images in the TensorFlow graph: decoded to the pixels of `images`, or refused in a sentence.

The graph knows JPEG, PNG, WebP, GIF and BMP. What it does not know, and what is damaged or too large, costs its own row of a
batch, as it would cost its own verdict in `predict`.
"""

import tensorflow as tf

from tfdetect.limits import Limits

UNKNOWN = "no JPEG, PNG, WebP, GIF or BMP: expected one of these, others are read by predict"
DAMAGED = "damaged, or of a variety that the SavedModel does not decode: predict says which"
CUT_OUT = "a GIF with places that are transparent or restored, which the SavedModel does not decode: it is read by predict"
ANIMATION = "an animated WebP, which the SavedModel does not decode: it is read by predict"
TIMED = "a GIF, of which this run takes frames by their times: it is read by predict"
VARIETY = "a BMP that is compressed or has 16 bits a pixel, which the SavedModel does not decode: it is read by predict"
EXIF_WITHIN = 65536  # bytes of a JPEG, in which its EXIF begins (CIPA DC-008, 4.6.4)
ENTRIES = 512  # of a directory in EXIF, at most
JPEG, PNG, GIF, WEBP, BMP = range(5)


def pictures(images, small, frames=1, fps=None, limits=None):
    """Encoded `images` (batch,) -> (rows, pictures, errors), every image by itself.

    Of each image one picture, of a GIF `frames`, each as `small` makes (1, size, size, 3) uint8 of a native frame. `rows` says
    of which image a picture is, `errors` (batch,) string why an image is refused, "" where it is good. A refused image has one
    picture that means nothing, or none.
    """
    count, limits = tf.shape(images)[0], limits or Limits()

    def one(row, data):
        kind = recognised(data)
        error = refusal(data, kind, fps, limits)
        found = tf.cond(error == "", lambda: small(chosen(decode(data, kind), frames)), lambda: small(_nothing()))
        return tf.fill(tf.shape(found)[:1], row), found, tf.fill(tf.shape(found)[:1], error)

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), images))
    found = files.map(one, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().unbatch()
    first = tf.data.Dataset.from_tensors((-1, small(_nothing())[0], ""))  # a batch needs an element; it is dropped
    together = first.concatenate(found).batch(tf.cast(count, tf.int64) * max(frames, 1) + 1)
    rows, found, errors = (part[1:] for part in together.get_single_element())
    return rows, found, tf.tensor_scatter_nd_update(tf.fill([count], DAMAGED), rows[:, None], errors)


def _nothing():
    return tf.zeros((1, 1, 1, 3), tf.uint8)


def recognised(data):
    """JPEG, PNG, GIF, WEBP or BMP, an int32, for encoded bytes, a scalar string; 5 for what is none of them."""
    data = tf.strings.join([data, b"\0" * 16])  # `substr` refuses a place beyond the end

    def starts(pattern, at=0):
        return tf.strings.substr(data, at, len(pattern)) == pattern

    webp = starts(b"RIFF") & starts(b"WEBP", 8)
    hits = [starts(b"\xff\xd8\xff"), starts(b"\x89PNG\r\n\x1a\n"), starts(b"GIF8"), webp, starts(b"BM"), True]
    return tf.argmax(tf.cast(tf.stack(hits), tf.int32), output_type=tf.int32)


def refusal(data, kind, fps, limits):
    """"" or why an image is not decoded, by its header alone."""
    raw = tf.io.decode_raw(data, tf.uint8)
    width, height = tf.unstack(tf.switch_case(kind, [
        lambda: tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)[1::-1],
        lambda: tf.stack([_number(raw, 16, 4, big=True), _number(raw, 20, 4, big=True)]),
        lambda: tf.stack([_number(raw, 6, 2), _number(raw, 8, 2)]),
        lambda: _webp_size(raw),
        lambda: tf.abs(_bmp_header(raw)[:2]),
        lambda: tf.ones([2], tf.int64),
    ]))  # fmt: skip
    # All frames of a GIF are decoded at once; what goes before each but the first ends with a zero.
    frames = tf.cond(kind == GIF, lambda: 1 + tf.size(find(raw, b"\0,"), tf.int64), lambda: tf.constant(1, tf.int64))
    pixels = width * height * frames
    large = tf.strings.format("{} pixels announced, at most {} are read", (pixels, limits.pixels))
    odd = tf.switch_case(kind, [
        lambda: tf.constant(""),
        lambda: tf.constant(""),
        lambda: tf.constant(TIMED) if fps else _gif_variety(raw),
        lambda: tf.where((raw[15] == ord("X")) & (raw[20] & 2 > 0), ANIMATION, ""),
        lambda: _bmp_variety(raw),
        lambda: tf.constant(UNKNOWN),
    ])  # fmt: skip
    return tf.where(odd != "", odd, tf.where(pixels > limits.pixels, large, ""))


def chosen(found, frames):
    """Of native frames (n, height, width, 3) those that the reader takes: all of one, else `frames` of them."""
    total = tf.shape(found)[0]
    return tf.cond(total == 1, lambda: found, lambda: tf.gather(found, evenly_spaced_indices(total, frames)))


def evenly_spaced_indices(total, frames):
    """Indices of `frames` frames evenly over 0..total-1, as `media.pick` takes them."""
    if frames == 1:
        return [total // 2]
    last = tf.cast(total - 1, tf.float64)
    return tf.cast(tf.round(tf.linspace(tf.constant(0, tf.float64), last, frames)), tf.int32)


def decode(data, kind=None):
    """Encoded image, a scalar string -> its frames (frames, height, width, 3) uint8 RGB, upright; InvalidArgumentError for what
    is damaged or of no kind that is known here."""
    # Only the accurate integer DCT gives OpenCV's pixels. Alpha is dropped, not blended; an animated WebP is not decoded.
    found = tf.switch_case(recognised(data) if kind is None else kind, [
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")[None],
        lambda: tf.io.decode_png(data, channels=3)[None],
        lambda: tf.io.decode_gif(data),
        lambda: _webp(data),
        lambda: _bmp(tf.io.decode_raw(data, tf.uint8))[None],
        lambda: tf.io.decode_gif(data),  # which it is not, and says so
    ])  # fmt: skip
    return tf.ensure_shape(upright(found, orientation(data)), (None, None, None, 3))


def upright(frames, turned):
    """Undo an EXIF orientation: 2 mirrored, 3 by 180, 4 mirrored by 180, 5..8 those with height and width swapped."""
    frames = tf.cond(turned >= 5, lambda: tf.transpose(frames, (0, 2, 1, 3)), lambda: frames)
    wide = tf.reduce_any(turned == [2, 3, 6, 7])
    tall = tf.reduce_any(turned == [3, 4, 7, 8])
    frames = tf.cond(wide, lambda: tf.reverse(frames, [2]), lambda: frames)
    return tf.cond(tall, lambda: tf.reverse(frames, [1]), lambda: frames)


def orientation(data):
    """EXIF orientation 1..8 of a JPEG, PNG or WebP, a scalar string; 1 where there is none."""
    raw = tf.io.decode_raw(data, tf.uint8)
    return tf.switch_case(recognised(data), [
        lambda: _orientation(raw, find(raw[:EXIF_WITHIN], b"Exif\0\0")[:1], 6),  # of several segments the reader takes the first
        lambda: _orientation(raw, find(raw, b"eXIf"), 4),
        lambda: 1,
        lambda: tf.cond(raw[20] & 8 > 0, lambda: _orientation(raw, find(raw, b"EXIF"), 8, prefixed=True), lambda: 1),
        lambda: 1,
        lambda: 1,
    ])  # fmt: skip


def _orientation(raw, found, after, prefixed=False):
    """Of the TIFF directory `after` bytes behind the last of the places `found`; `prefixed`: JPEG's six bytes may come first, as
    in WebP, while libpng then drops the whole."""
    def number(at, count, big):
        at = tf.cast(at, tf.int32)
        digits = tf.gather(raw, tf.clip_by_value(at[..., None] + tf.range(count), 0, tf.size(raw) - 1))
        digits = tf.where(big, digits, tf.reverse(digits, [-1]))
        return tf.reduce_sum(tf.cast(digits, tf.int32) * tf.constant([256**n for n in reversed(range(count))]), axis=-1)

    def look():
        start = found[-1] + after
        if prefixed:
            start += tf.where(number(start, 4, True) == int.from_bytes(b"Exif", "big"), 6, 0)
        order = number(start, 2, True)
        big = order == int.from_bytes(b"MM", "big")
        directory = start + number(start + 4, 4, big)
        entries = directory + 2 + 12 * tf.range(tf.clip_by_value(number(directory, 2, big), 0, ENTRIES))
        turned = tf.boolean_mask(number(entries + 8, 2, big), number(entries, 2, big) == 0x0112)
        known = big | (order == int.from_bytes(b"II", "big"))
        return tf.cond((tf.size(turned) > 0) & known, lambda: turned[0], lambda: 1)

    turned = tf.cond(tf.size(found) > 0, look, lambda: 1)
    return tf.where((turned >= 1) & (turned <= 8), turned, 1)


def find(raw, pattern):
    """Where the bytes `pattern` begin in the uint8 vector `raw`, int32."""
    places = tf.where(raw[: tf.maximum(tf.size(raw) - len(pattern) + 1, 0)] == pattern[0])[:, 0]
    for number, byte in enumerate(pattern[1:], 1):
        places = tf.boolean_mask(places, tf.gather(raw, places + number) == byte)
    return tf.cast(places, tf.int32)


def _number(raw, at, count, big=False):
    """An unsigned number of `count` bytes, int64; InvalidArgumentError where the vector ends before."""
    digits = tf.ensure_shape(raw[at : at + count], [count])
    return sum(tf.cast(digits[count - 1 - n if big else n], tf.int64) * 256**n for n in range(count))


def _controls(raw):
    """Of the frames of a GIF that have such, the byte that says what becomes of them."""
    places = find(raw, b"\x21\xf9\x04")
    after = tf.gather(raw, tf.minimum(places[:, None] + [3, 7, 8], tf.size(raw) - 1))
    return tf.cast(tf.boolean_mask(after[:, 0], (after[:, 1] == 0) & ((after[:, 2] == 0x2C) | (after[:, 2] == 0x21))), tf.int32)


def _gif_variety(raw):
    controls = _controls(raw)
    return tf.where(tf.reduce_any(controls // 4 % 8 >= 2) | tf.reduce_any(controls[:1] % 2 == 1), CUT_OUT, "")


def _webp(data):
    # Without a number of channels TensorFlow writes an animation beyond its buffer, with a wrong one it refuses.
    raw = tf.io.decode_raw(data, tf.uint8)
    alpha = ((raw[15] == ord("X")) & (raw[20] & 16 > 0)) | ((raw[15] == ord("L")) & (raw[24] & 16 > 0))
    return tf.cond(alpha, lambda: tf.io.decode_webp(data, channels=4)[:1, ..., :3], lambda: tf.io.decode_webp(data, channels=3))


def _webp_size(raw):
    extended = tf.stack([1 + _number(raw, 24, 3), 1 + _number(raw, 27, 3)])
    lossless = 1 + tf.stack([_number(raw, 21, 4) & 0x3FFF, _number(raw, 21, 4) // 2**14 & 0x3FFF])
    lossy = tf.stack([_number(raw, 26, 2), _number(raw, 28, 2)]) & 0x3FFF
    return tf.where(raw[15] == ord("X"), extended, tf.where(raw[15] == ord("L"), lossless, lossy))


def _bmp_header(raw):
    """(width, height, bits a pixel, compression, bytes of the header, where the pixels begin), int64; the height is below 0 where
    the upper row comes first."""
    header = _number(raw, 14, 4)
    old = [_number(raw, 18, 2), _number(raw, 20, 2), _number(raw, 24, 2), tf.constant(0, tf.int64)]
    new = [_signed(_number(raw, 18, 4)), _signed(_number(raw, 22, 4)), _number(raw, 28, 2), _number(raw, 30, 4)]
    return tf.stack([*tf.unstack(tf.where(header == 12, tf.stack(old), tf.stack(new))), header, _number(raw, 10, 4)])


def _signed(number):
    return tf.where(number >= 2**31, number - 2**32, number)


def _bmp_variety(raw):
    """"" or why a BMP is not decoded: what is compressed, and colours in other bits than whole bytes."""
    _, _, bits, compression, _, _ = tf.unstack(_bmp_header(raw))
    plain = (compression == 0) & tf.reduce_any(bits == tf.constant([1, 4, 8, 24, 32], tf.int64))
    masks = (compression == 3) & (bits == 32) & tf.reduce_all(raw[54:66] == [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0])
    return tf.where(plain | masks, "", VARIETY)


def _bmp(raw):
    """(height, width, 3) of a BMP of 24 or 32 bits, or of 1, 4 or 8 bits and a palette: an index, which `tf.io.decode_bmp` takes
    for a grey."""
    width, height, bits, _, header, start = tf.unstack(_bmp_header(raw))
    stride, tall = (bits * width + 31) // 32 * 4, tf.abs(height)
    rows = tf.reshape(raw[start : start + stride * tall], (tall, stride))
    rows = tf.cond(height > 0, lambda: tf.reverse(rows, [0]), lambda: rows)

    def looked_up():
        entry = tf.where(header == 12, tf.constant(3, tf.int64), 4)
        palette = tf.reshape(raw[14 + header : 14 + header + (start - 14 - header) // entry * entry], (-1, entry))[:, 2::-1]
        parts = tf.cast(8 // bits, tf.int32)
        shifts = 8 - tf.cast(bits, tf.int32) * (1 + tf.range(parts))
        indices = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], shifts) & 255 // 2 ** (8 - tf.cast(bits, tf.int32))
        return tf.gather(tf.pad(palette, [[0, 256], [0, 0]]), tf.reshape(indices, (tall, -1))[:, :width])

    def coloured():
        return tf.reshape(rows[:, : width * bits // 8], (tall, width, bits // 8))[..., 2::-1]

    return tf.ensure_shape(tf.cond(bits <= 8, looked_up, coloured), (None, None, 3))
