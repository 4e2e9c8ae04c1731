"""Intact files of every format and codec that the suite reads, small, for `fuzz.py` to damage."""

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FRAMES = 64, 48, 12

ROTATED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\1\x03\0\1\0\0\0\6\0\0\0\0\0\0\0"  # EXIF orientation: 90 degrees
# file name -> mode and further arguments of Pillow's `save`
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain.jpg": ("RGB", {"quality": 90}),
    "progressive.jpg": ("RGB", {"progressive": True, "exif": ROTATED}),
    "cmyk.jpg": ("CMYK", {}),
    "plain.png": ("RGB", {}),
    "palette.png": ("P", {}),
    "alpha.png": ("RGBA", {}),
    "deep.png": ("I;16", {}),
    "moving.png": ("RGB", {"save_all": True}),
    "lossy.webp": ("RGB", {}),
    "lossless.webp": ("RGBA", {"lossless": True}),
    "moving.webp": ("RGB", {"save_all": True}),
    "plain.bmp": ("RGB", {}),
    "palette.bmp": ("P", {}),
    "raw.tiff": ("RGB", {}),
    "lzw.tiff": ("RGB", {"compression": "tiff_lzw"}),
    "deflated.tiff": ("I;16", {"compression": "tiff_adobe_deflate"}),
    "float.tiff": ("F", {}),
    "fax.tiff": ("1", {"compression": "group4"}),
    "jpeg.tiff": ("RGB", {"compression": "jpeg"}),
    "pages.tiff": ("RGB", {"save_all": True}),
    "moving.gif": ("P", {"save_all": True}),
    "plain.avif": ("RGB", {"exif": ROTATED}),
    "alpha.avif": ("RGBA", {}),
    "moving.avif": ("RGB", {"save_all": True}),
    "boxes.jp2": ("RGB", {}),
    "stream.j2k": ("RGB", {"no_jp2": True}),
}
# file name -> codec, pixel format, options of the muxer
VIDEOS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264.mp4": ("libx264", "yuv420p", {}),
    "faststart.mov": ("libx264", "yuv422p", {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "h264.mkv": ("libx264", "yuv420p", {}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "disc.m2ts": ("libx264", "yuv420p", {"mpegts_m2ts_mode": "1"}),
    "phone.3gp": ("mpeg4", "yuv420p", {}),
    "h264.flv": ("libx264", "yuv420p", {}),
    "sorenson.flv": ("flv", "yuv420p", {}),
    "windows.wmv": ("wmv2", "yuv420p", {}),
    "vp8.ogv": ("libvpx", "yuv420p", {}),
    "disc.vob": ("mpeg2video", "yuv420p", {}),
    "hevc.mp4": ("libx265", "yuv420p", {}),
    "vp8.webm": ("libvpx", "yuv420p", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "av1.mp4": ("libsvtav1", "yuv420p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "motion.avi": ("mjpeg", "yuvj420p", {}),
    "huffyuv.avi": ("huffyuv", "yuv422p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "animation.mov": ("qtrle", "rgb24", {}),
    "ffv1.mkv": ("ffv1", "yuv420p", {}),
    "loop.gif": ("gif", "rgb8", {}),
}


def draw_frames() -> list[np.ndarray]:
    """Return the frames of a moving pattern, each (height, width, 3) uint8 RGB."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    waves = [128 + 90 * np.sin((columns + 3 * i) / 5 + rows / (4 + np.arange(3)[:, None, None])) for i in range(FRAMES)]
    return [wave.transpose(1, 2, 0).astype(np.uint8) for wave in waves]


def intact_files() -> dict[str, bytes]:
    """Return file name -> content of an intact file of each format for which this machine has an encoder."""
    import av

    frames = draw_frames()
    images = {name: encode_image(name, frames, mode, options) for name, (mode, options) in IMAGES.items()}
    available = {name: arguments for name, arguments in VIDEOS.items() if arguments[0] in av.codecs_available}
    with open(os.devnull, "w") as devnull, open(os.dup(2), "w") as stderr:
        os.dup2(devnull.fileno(), 2)  # some encoders print to it
        try:
            return images | {name: encode_video(name, frames, *arguments) for name, arguments in available.items()}
        finally:
            os.dup2(stderr.fileno(), 2)


def encode_image(name: str, frames: Sequence[np.ndarray], mode: str, options: dict[str, Any]) -> bytes:
    """Return an image file of the first frame, or of all frames if the options say `save_all`."""
    target = io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(frames[0][..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(frames[0]).convert(mode)
    others = {"append_images": [Image.fromarray(frame).convert(mode) for frame in frames[1:]]} if "save_all" in options else {}
    extension = name.rpartition(".")[2]
    image.save(target, {"jpg": "jpeg", "jp2": "jpeg2000", "j2k": "jpeg2000"}.get(extension, extension), **options, **others)
    return target.getvalue()


def encode_video(name: str, frames: Sequence[np.ndarray], codec: str, pixel_format: str, muxer: dict[str, str]) -> bytes:
    """Return a video file of the frames."""
    import av

    with tempfile.TemporaryDirectory() as folder:  # because some muxers read back what they wrote
        with av.open(f"{folder}/{name}", "w", options={"fflags": "+bitexact"} | muxer) as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = WIDTH, HEIGHT, pixel_format, 5
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return Path(folder, name).read_bytes()
