"""Decode encoded images in the TensorFlow graph to the pixels of `images.py`, or report why an image is rejected.

The graph decodes JPEG, PNG, WebP, GIF and BMP. An image that it cannot decode, or that is damaged or too large, only fails its
own row of a batch.
"""

from collections.abc import Callable

import tensorflow as tf

from tfdetect.limits import MAX_SIDE, Limits

UNKNOWN_FORMAT = "not a JPEG, PNG, WebP, GIF or BMP; predict reads other formats"
DAMAGED = "damaged, or of a kind that the SavedModel does not decode; predict gives the reason"
TRANSPARENT_GIF = "a GIF with transparent or restored areas, which the SavedModel does not decode; predict reads it"
ANIMATED_WEBP = "an animated WebP, which the SavedModel does not decode; predict reads it"
TIMED_GIF = "a GIF, from which this run samples frames by time; predict reads it"
CMYK_JPEG = "a JPEG in CMYK, whose colours the SavedModel converts in another way than predict; predict reads it"
UNSUPPORTED_BMP = "a BMP that is compressed or has 16 bits per pixel, which the SavedModel does not decode; predict reads it"
MAX_EXIF_START = 65536  # bytes of a JPEG within which its EXIF begins (CIPA DC-008, 4.6.4)
MAX_EXIF_ENTRIES = 512  # per directory
JPEG, PNG, GIF, WEBP, BMP = range(5)


def decode_images(images: tf.Tensor, to_squares: Callable[[tf.Tensor], tf.Tensor], frames: int = 1, fps: float | None = None,
                  limits: Limits | None = None, crops: int = 1) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:  # fmt: skip
    """Decode `images` (batch,), encoded strings, independently of each other; return (rows, squares, errors).

    An image has one frame, of a GIF `frames` are taken; `to_squares` makes at most `crops` squares of each: (frames, height,
    width, 3) uint8 to (squares, size, size, 3) uint8. `rows` (squares,) int32 is the index of the image that each square comes
    from; `errors` (batch,) string says why an image is rejected, "" if it is not. A rejected image yields one square without
    meaning, or none.
    """
    count, limits, blank = tf.shape(images)[0], limits or Limits(), to_squares(tf.zeros((1, 1, 1, 3), tf.uint8))

    @tf.autograph.experimental.do_not_convert
    def decode_one(row: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        error = _traced_rejection_reason(data, bool(fps), limits.pixels)
        decoded = tf.cond(error == "", lambda: to_squares(select_frames(decode_image(data), frames)), lambda: blank)
        return tf.fill(tf.shape(decoded)[:1], row), decoded, tf.fill(tf.shape(decoded)[:1], error)

    files = tf.data.Dataset.from_tensor_slices((tf.range(count), images))
    results = files.map(decode_one, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors().unbatch()
    first = tf.data.Dataset.from_tensors((-1, blank[0], ""))  # a batch needs an element; dropped below
    batch = first.concatenate(results).batch(tf.cast(count, tf.int64) * max(frames, 1) * crops + 1)
    rows, decoded, errors = (part[1:] for part in batch.get_single_element())
    return rows, decoded, tf.tensor_scatter_nd_update(tf.fill([count], DAMAGED), rows[:, None], errors)


def image_kind(data: tf.Tensor) -> tf.Tensor:
    """Return JPEG, PNG, GIF, WEBP or BMP, scalar int32, for an encoded image, scalar string; 5 for anything else."""
    data = tf.strings.join([data, b"\0" * 16])  # `substr` rejects positions beyond the end

    def has(pattern: bytes, position: int = 0) -> tf.Tensor:
        return tf.strings.substr(data, position, len(pattern)) == pattern

    webp = has(b"RIFF") & has(b"WEBP", 8)
    matches = [has(b"\xff\xd8\xff"), has(b"\x89PNG\r\n\x1a\n"), has(b"GIF8"), webp, has(b"BM"), True]
    return tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32)


def _rejection_reason(data: tf.Tensor, by_time: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    """Return why an image is not decoded, from its header alone; "" if it is.

    `by_time`, scalar bool: whether frames are sampled by time; `max_pixels`, scalar int64: of all frames together.
    """
    raw, kind = tf.io.decode_raw(data, tf.uint8), image_kind(data)
    width, height = tf.unstack(tf.switch_case(kind, [
        lambda: tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)[1::-1],
        lambda: tf.stack([_read_uint(raw, 16, 4, big_endian=True), _read_uint(raw, 20, 4, big_endian=True)]),
        lambda: tf.stack([_read_uint(raw, 6, 2), _read_uint(raw, 8, 2)]),
        lambda: _webp_size(raw),
        lambda: tf.abs(_bmp_header(raw)[:2]),
        lambda: tf.ones([2], tf.int64),
    ]))  # fmt: skip
    # All frames of a GIF are decoded at once. Each but the first follows a block that ends with a zero byte.
    frames = tf.cond(kind == GIF, lambda: 1 + tf.size(find_bytes(raw, b"\0,"), tf.int64), lambda: tf.constant(1, tf.int64))
    pixels = width * height * frames
    too_large = tf.strings.format("{} pixels announced, at most {} are read", (pixels, max_pixels))
    too_long = tf.strings.format("{} x {} pixels announced, at most {} in a row or column are read", (width, height, MAX_SIDE))
    unsupported = tf.switch_case(kind, [
        lambda: tf.where(tf.io.extract_jpeg_shape(data)[2] == 4, CMYK_JPEG, ""),
        lambda: tf.constant(""),
        lambda: tf.where(by_time, TIMED_GIF, _gif_rejection(raw)),
        lambda: tf.where((raw[15] == ord("X")) & (raw[20] & 2 > 0), ANIMATED_WEBP, ""),
        lambda: _bmp_rejection(raw),
        lambda: tf.constant(UNKNOWN_FORMAT),
    ])  # fmt: skip
    excess = tf.where(pixels > max_pixels, too_large, tf.where(tf.maximum(width, height) > MAX_SIDE, too_long, ""))
    return tf.where(unsupported != "", unsupported, excess)


def select_frames(native: tf.Tensor, frames: int) -> tf.Tensor:
    """Select the frames that the reader chooses from `native` (total, height, width, 3): a single one, or `frames` of them."""
    total = tf.shape(native)[0]
    return tf.cond(total == 1, lambda: native, lambda: tf.gather(native, evenly_spaced_indices(total, frames)))


def evenly_spaced_indices(total: tf.Tensor, frames: int) -> tf.Tensor | list[tf.Tensor]:
    """Return `frames` indices spread evenly over 0..total-1, as `frames.evenly_spaced` does."""
    if frames == 1:
        return [total // 2]
    last = tf.cast(total - 1, tf.float64)
    return tf.cast(tf.round(tf.linspace(tf.constant(0, tf.float64), last, frames)), tf.int32)


def decode_image(data: tf.Tensor) -> tf.Tensor:
    """Decode an encoded image, scalar string, to its frames (frames, height, width, 3) uint8 RGB, upright.

    Raises tf.errors.InvalidArgumentError if the image is damaged or its format unknown.
    """
    return _traced_decode_image(data) if tf.inside_function() else _decode_image(data)


def _decode_image(data: tf.Tensor) -> tf.Tensor:
    # Only the accurate integer DCT gives OpenCV's pixels. Alpha is dropped, not blended; animated WebP is not decoded.
    frames = tf.switch_case(image_kind(data), [
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")[None],
        lambda: tf.io.decode_png(data, channels=3)[None],
        lambda: tf.io.decode_gif(data),
        lambda: _decode_webp(data),
        lambda: _decode_bmp(tf.io.decode_raw(data, tf.uint8))[None],
        lambda: tf.io.decode_gif(data),  # raises InvalidArgumentError, since it is none
    ])  # fmt: skip
    return tf.ensure_shape(apply_orientation(frames, exif_orientation(data)), (None, None, None, 3))


def apply_orientation(frames: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn (frames, height, width, 3) upright by an EXIF orientation.

    2 is mirrored, 3 rotated by 180 degrees, 4 flipped; 5 to 8 have height and width swapped as well.
    """
    frames = tf.cond(orientation >= 5, lambda: tf.transpose(frames, (0, 2, 1, 3)), lambda: frames)
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    flipped = tf.reduce_any(orientation == [3, 4, 7, 8])
    frames = tf.cond(mirrored, lambda: tf.reverse(frames, [2]), lambda: frames)
    return tf.cond(flipped, lambda: tf.reverse(frames, [1]), lambda: frames)


def exif_orientation(data: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation 1..8 of an encoded JPEG, PNG or WebP, scalar string; 1 if it has none."""
    raw, nowhere = tf.io.decode_raw(data, tf.uint8), lambda: tf.constant(-1)

    def start_in_webp() -> tf.Tensor:
        start = _last(find_bytes(raw, b"EXIF"), 8)
        # The six bytes that introduce EXIF in a JPEG may come first; libpng ignores EXIF with them.
        has_prefix = (start >= 0) & (_read_number(raw, start, 4) == int.from_bytes(b"Exif", "big"))
        return tf.where(has_prefix, start + 6, start)

    start = tf.switch_case(image_kind(data), [
        lambda: _last(find_bytes(raw[:MAX_EXIF_START], b"Exif\0\0")[:1], 6),  # the reader uses the first segment
        lambda: _last(find_bytes(raw, b"eXIf"), 4),
        nowhere,
        lambda: tf.cond(raw[20] & 8 > 0, start_in_webp, nowhere),
        nowhere,
        nowhere,
    ])  # fmt: skip
    orientation = tf.cond(start >= 0, lambda: _tiff_orientation(raw, start), lambda: tf.constant(1))
    return tf.where((orientation >= 1) & (orientation <= 8), orientation, 1)


def _last(positions: tf.Tensor, offset: int) -> tf.Tensor:
    """Return the last of some positions, int32, plus an offset; -1 if there is none."""
    return tf.cond(tf.size(positions) > 0, lambda: positions[-1] + offset, lambda: tf.constant(-1))


def _tiff_orientation(raw: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Read the orientation from the TIFF directory that starts at an index of the bytes `raw`; 1 if it has none."""
    order = _read_number(raw, start, 2)
    big_endian = order == int.from_bytes(b"MM", "big")
    directory = start + _read_number(raw, start + 4, 4, big_endian)
    entries = directory + 2 + 12 * tf.range(tf.clip_by_value(_read_number(raw, directory, 2, big_endian), 0, MAX_EXIF_ENTRIES))
    tags, values = (_read_number(raw, entries + offset, 2, big_endian) for offset in (0, 8))
    values = tf.boolean_mask(values, tags == 0x0112)
    is_valid = big_endian | (order == int.from_bytes(b"II", "big"))
    return tf.cond((tf.size(values) > 0) & is_valid, lambda: values[0], lambda: tf.constant(1))


def _read_number(raw: tf.Tensor, position: tf.Tensor, count: int, big_endian: tf.Tensor | bool = True) -> tf.Tensor:
    """Read numbers of `count` bytes, int32, at these positions, int32; beyond the end of `raw` its last byte repeats."""
    digits = tf.gather(raw, tf.clip_by_value(position[..., None] + tf.range(count), 0, tf.size(raw) - 1))
    digits = tf.where(big_endian, digits, tf.reverse(digits, [-1]))
    return tf.reduce_sum(tf.cast(digits, tf.int32) * tf.constant([256**n for n in reversed(range(count))]), axis=-1)


def find_bytes(raw: tf.Tensor, pattern: bytes) -> tf.Tensor:
    """Return the positions, int32, at which the bytes `pattern` begin in the uint8 vector `raw`."""
    positions = tf.where(raw[: tf.maximum(tf.size(raw) - len(pattern) + 1, 0)] == pattern[0])[:, 0]
    for offset, byte in enumerate(pattern[1:], 1):
        positions = tf.boolean_mask(positions, tf.gather(raw, positions + offset) == byte)
    return tf.cast(positions, tf.int32)


def _read_uint(raw: tf.Tensor, position: int, count: int, big_endian: bool = False) -> tf.Tensor:
    """Read an unsigned number of `count` bytes as int64. Raises InvalidArgumentError if the vector is too short."""
    digits = tf.ensure_shape(raw[position : position + count], [count])
    powers = [256**n for n in range(count)]
    return tf.reduce_sum(tf.cast(digits, tf.int64) * tf.constant(powers[::-1] if big_endian else powers, tf.int64))


def _gif_controls(raw: tf.Tensor) -> tf.Tensor:
    """Return the flags, int32, of each graphic control extension of a GIF: transparency and disposal."""
    positions = find_bytes(raw, b"\x21\xf9\x04")
    flags, end, following = tf.unstack(tf.gather(raw, tf.minimum(positions[:, None] + [3, 7, 8], tf.size(raw) - 1)), axis=1)
    is_valid = (end == 0) & ((following == 0x2C) | (following == 0x21))
    return tf.cast(tf.boolean_mask(flags, is_valid), tf.int32)


def _gif_rejection(raw: tf.Tensor) -> tf.Tensor:
    controls = _gif_controls(raw)
    return tf.where(tf.reduce_any(controls // 4 % 8 >= 2) | tf.reduce_any(controls[:1] % 2 == 1), TRANSPARENT_GIF, "")


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    # Without a number of channels, TensorFlow writes an animation beyond its buffer; with a wrong one, it fails.
    raw = tf.io.decode_raw(data, tf.uint8)
    alpha = ((raw[15] == ord("X")) & (raw[20] & 16 > 0)) | ((raw[15] == ord("L")) & (raw[24] & 16 > 0))
    return tf.cond(alpha, lambda: tf.io.decode_webp(data, channels=4)[:1, ..., :3], lambda: tf.io.decode_webp(data, channels=3))


def _webp_size(raw: tf.Tensor) -> tf.Tensor:
    extended = tf.stack([1 + _read_uint(raw, 24, 3), 1 + _read_uint(raw, 27, 3)])
    lossless = 1 + tf.stack([_read_uint(raw, 21, 4) & 0x3FFF, _read_uint(raw, 21, 4) // 2**14 & 0x3FFF])
    lossy = tf.stack([_read_uint(raw, 26, 2), _read_uint(raw, 28, 2)]) & 0x3FFF
    return tf.where(raw[15] == ord("X"), extended, tf.where(raw[15] == ord("L"), lossless, lossy))


def _bmp_header(raw: tf.Tensor) -> tf.Tensor:
    """Return (width, height, bits per pixel, compression, header bytes, offset of the pixels), int64.

    The height is negative if the top row comes first.
    """
    size = _read_uint(raw, 14, 4)
    old = [_read_uint(raw, 18, 2), _read_uint(raw, 20, 2), _read_uint(raw, 24, 2), tf.constant(0, tf.int64)]
    new = [_to_signed(_read_uint(raw, 18, 4)), _to_signed(_read_uint(raw, 22, 4)), _read_uint(raw, 28, 2), _read_uint(raw, 30, 4)]
    return tf.stack([*tf.unstack(tf.where(size == 12, tf.stack(old), tf.stack(new))), size, _read_uint(raw, 10, 4)])


def _to_signed(number: tf.Tensor) -> tf.Tensor:
    return tf.where(number >= 2**31, number - 2**32, number)


def _bmp_rejection(raw: tf.Tensor) -> tf.Tensor:
    """Return why a BMP is not decoded, "" if it is: compression, or channels that are not whole bytes."""
    _, _, bits, compression, _, _ = tf.unstack(_bmp_header(raw))
    plain = (compression == 0) & tf.reduce_any(bits == tf.constant([1, 4, 8, 24, 32], tf.int64))
    masks = (compression == 3) & (bits == 32) & tf.reduce_all(raw[54:66] == [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0])
    return tf.where(plain | masks, "", UNSUPPORTED_BMP)


def _decode_bmp(raw: tf.Tensor) -> tf.Tensor:
    """Decode a BMP of 24 or 32 bits per pixel, or 1, 4 or 8 bits with a palette, to (height, width, 3).

    `tf.io.decode_bmp` would take the palette indices for grey levels.
    """
    width, signed_height, bits, _, header, start = tf.unstack(_bmp_header(raw))
    stride, height = (bits * width + 31) // 32 * 4, tf.abs(signed_height)
    rows = tf.reshape(raw[start : start + stride * height], (height, stride))
    rows = tf.cond(signed_height > 0, lambda: tf.reverse(rows, [0]), lambda: rows)

    def from_palette() -> tf.Tensor:
        entry = tf.where(header == 12, tf.constant(3, tf.int64), 4)
        palette = tf.reshape(raw[14 + header : 14 + header + (start - 14 - header) // entry * entry], (-1, entry))[:, 2::-1]
        per_byte = tf.cast(8 // bits, tf.int32)
        shifts = 8 - tf.cast(bits, tf.int32) * (1 + tf.range(per_byte))
        indices = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], shifts) & 255 // 2 ** (8 - tf.cast(bits, tf.int32))
        return tf.gather(tf.pad(palette, [[0, 256], [0, 0]]), tf.reshape(indices, (height, -1))[:, :width])

    def from_channels() -> tf.Tensor:
        return tf.reshape(rows[:, : width * bits // 8], (height, width, bits // 8))[..., 2::-1]

    return tf.ensure_shape(tf.cond(bits <= 8, from_palette, from_channels), (None, None, 3))


_STRING = tf.TensorSpec((), tf.string)
_traced_decode_image = tf.function(_decode_image, [_STRING], autograph=False)
_traced_rejection_reason = tf.function(_rejection_reason, [_STRING, tf.TensorSpec((), tf.bool), tf.TensorSpec((), tf.int64)],
                                       autograph=False)  # fmt: skip
