"""Image formats and codecs: encode a picture, read it through tfdetect's own reader, and compare the pixels."""

import base64
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdetect.workflow.doctor.finding import Finding

if TYPE_CHECKING:
    import numpy as np

WIDTH, HEIGHT, FRAMES = 64, 48, 8
TOLERANCE = 16.0  # mean difference in grey levels; lossy formats stay below 10, swapped colours exceed 60
REINSTALL_READERS = "pip install --force-reinstall opencv-python-headless av pillow pi-heif, or convert such files."
NO_ENCODER = "no encoder here can make a sample"
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {  # Pillow's name and options
    "JPEG": ("JPEG", {"quality": 90}),
    "PNG": ("PNG", {}),
    "WebP": ("WEBP", {"quality": 90}),
    "HEIC": ("", {}),
    "AVIF": ("AVIF", {"quality": 80, "speed": 10}),
    "TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "JPEG 2000": ("JPEG2000", {}),
    "BMP": ("BMP", {}),
    "GIF": ("GIF", {}),
}
VIDEOS: dict[str, tuple[str, str, str, dict[str, str]]] = {  # encoder, FFmpeg's format, pixel format, options
    "H.264 in MP4": ("libx264", "mp4", "yuv420p", {}),
    "H.264 in MKV": ("libx264", "matroska", "yuv420p", {}),
    "HEVC in MP4": ("libx265", "mp4", "yuv420p", {"x265-params": "log-level=none"}),
    "AV1 in MP4": ("libsvtav1", "mp4", "yuv420p", {"preset": "12"}),
    "VP9 in WebM": ("libvpx-vp9", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "VP8 in WebM": ("libvpx", "webm", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "MPEG-4 in AVI": ("mpeg4", "avi", "yuv420p", {}),
    "MJPEG in AVI": ("mjpeg", "avi", "yuvj420p", {}),
    "MPEG-2 in TS": ("mpeg2video", "mpegts", "yuv420p", {}),
    "MPEG-1 in MPG": ("mpeg1video", "mpeg", "yuv420p", {}),
    "H.263 in 3GP": ("h263", "3gp", "yuv420p", {}),
    "Theora in Ogg": ("libtheora", "ogg", "yuv420p", {}),
    "WMV in ASF": ("wmv2", "asf", "yuv420p", {}),
    "FLV": ("flv", "flv", "yuv420p", {}),
    "ProRes in MOV": ("prores_ks", "mov", "yuv422p10le", {}),
}
HEIC = base64.b64decode(  # `picture()`, since no library here writes HEIC; the tests compare both
    """
    AAAAGGZ0eXBoZWljAAAAAG1pZjFoZWljAAABJm1ldGEAAAAAAAAAIWhkbHIAAAAAAAAAAHBpY3QAAAAAAAAAAAAAAAAAAAAADnBpdG0AAAAAAAEAAAAe
    aWxvYwAAAABEAAABAAEAAAABAAABRgAAAHEAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAKppcHJwAAAAjWlwY28AAABxaHZjQwEE
    CAAAAJ+oAAAAAB7wAPz9+PgAAA8DoAABABdAAQwB//8ECAAAAwCfqAAAAwAAHroCQKEAAQAmQgEBBAgAAAMAn6gAAAMAAB6gIIMWW6uTK5oCAAADAAIA
    AAMAAhCiAAEABkQBwXPAiQAAABRpc3BlAAAAAAAAAEAAAAAwAAAAFWlwbWEAAAAAAAAAAQABAoGCAAAAeW1kYXQAAABtKAGvePdMdkplQg/sbgMsNG6x
    iG6gpRoGVtTGb4OMfzLaqlPik9kjxIr+GGHv/lB4G4zhy3K53ur31/gSwEsZeqCpyJMBW/PxClZdLJ3MVOIPK5dVZekM5msnDCazVN4tB+raFSZTA608
    gdOrmg=="""
)


def picture(width: int = WIDTH, height: int = HEIGHT) -> "np.ndarray":
    """Return the test picture, (height, width, 3) uint8 RGB: red grows to the right, green downwards."""
    import numpy as np

    rows, columns = np.mgrid[:height, :width]
    return np.stack([255 * columns / (width - 1), 255 * rows / (height - 1), 0 * rows + 128], axis=-1).astype(np.uint8)


def check_image(name: str) -> Iterator[Finding]:
    """Check that images in this format are read."""
    yield encode_and_read("images", name, encode_image, picture())


def encode_image(name: str) -> bytes:
    """Return the test picture in this format, b"" if Pillow has no encoder for it."""
    if name == "HEIC":
        return HEIC
    from PIL import Image

    file_format, options = IMAGES[name]
    memory = io.BytesIO()
    try:
        Image.fromarray(picture()).save(memory, file_format, **options)
    except (KeyError, OSError):  # Pillow was built without it
        return b""
    return memory.getvalue()


def check_video(name: str) -> Iterator[Finding]:
    """Check that videos with this codec in this container are read."""
    yield encode_and_read("videos", name, encode_video, picture(2 * WIDTH, 2 * HEIGHT))


def encode_video(name: str) -> bytes:
    """Return a video of FRAMES test pictures, 128 x 96 pixels, b"" if PyAV has no encoder for it."""
    import av

    codec, container_format, pixel_format, options = VIDEOS[name]
    memory = io.BytesIO()
    try:
        av.codec.Codec(codec, "w")
        container = av.open(memory, "w", format=container_format)
    except ValueError:  # unknown codec or format
        return b""
    with container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 2 * WIDTH, 2 * HEIGHT, pixel_format, 2_000_000
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(2 * WIDTH, 2 * HEIGHT), format="rgb24")))
        container.mux(stream.encode())
    return memory.getvalue()


def encode_and_read(part: str, name: str, encode: Callable[[str], bytes], expected: "np.ndarray") -> Finding:
    """Encode a picture and read it; a failing encoder is no problem, since tfdetect reads files of others."""
    try:
        content = encode(name)
    except ImportError:
        raise
    except Exception as error:
        return Finding(part, name, "not tried", f"the encoder of the sample fails ({error})")
    if not content:
        return Finding(part, name, "not tried", NO_ENCODER)
    return read_back(part, name, content, expected)


def read_back(part: str, name: str, content: bytes, expected: "np.ndarray") -> Finding:
    """Read an encoded picture as tfdetect reads any file, and compare it with the original."""
    import numpy as np

    from tfdetect.data.media.read import read_media
    from tfdetect.data.media.sniff import MediaError

    with tempfile.TemporaryDirectory(prefix="tfdetect-") as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        try:
            frame = read_media(path).frames[0]
        except MediaError as error:
            return Finding(part, name, "problem", f"cannot be read: {error}", REINSTALL_READERS)
    if frame.shape != expected.shape:
        reason = f"is read with the shape {frame.shape} instead of {expected.shape}"
        return Finding(part, name, "problem", reason, REINSTALL_READERS)
    if (difference := float(np.abs(frame.astype(float) - expected).mean())) > TOLERANCE:
        reason = f"is read with wrong pixels, off by {difference:.0f} of 255 on average"
        return Finding(part, name, "problem", reason, REINSTALL_READERS)
    return Finding(part, name)
