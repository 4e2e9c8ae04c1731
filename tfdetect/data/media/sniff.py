"""Recognise a file by its first bytes, never by its extension. Extensions only serve to list folders."""

import os
import re
import stat
from pathlib import Path

from tfdetect.errors import UserError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".heic",
                    ".heif", ".hif", ".heics", ".heifs", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf",
                    ".jpx")  # fmt: skip
VIDEO_EXTENSIONS = (".gif", ".mp4", ".m4v", ".mp4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".f4v", ".mkv", ".webm", ".avi",
                    ".divx", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".m2p", ".vob", ".ts", ".mts", ".m2t", ".m2ts", ".ogv",
                    ".ogg", ".ogm", ".wmv", ".asf", ".flv", ".dv")  # fmt: skip
HEAD_BYTES = 4096  # read to recognise a file
PACKET_SIZES = (188, 192, 204)  # bytes per transport-stream packet: plain, with a timestamp (discs, camcorders), with a checksum

_IMAGE_PATTERNS = {
    "jpeg": rb"\xff\xd8\xff",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
    "tiff": rb"II\*\0|MM\0\*",
    "jpeg2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "heif": rb"\0\0..ftyp(hei[cmsx]|hev[cmsx]|mif[123]|msf1|miaf|avi[fs])",
    "bmp": rb"BM.{12}.\0\0\0",
}
_VIDEO_PATTERNS = {  # by FFmpeg demuxer; chosen here because FFmpeg would also consider the extension
    "gif": rb"GIF8[79]a",
    "avi": rb"RIFF....AVI ",
    "matroska": rb"\x1aE\xdf\xa3",
    "mpeg": rb"\0\0\x01\xba",
    "mpegvideo": rb"\0\0\x01\xb3",
    "ogg": rb"OggS",
    "flv": rb"FLV\x01",
    "dv": rb"\x1f\x07\0",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",  # also WMV
    "mov": rb"\0\0..ftyp|\0...(moov|free|skip|wide|pnot|styp|sidx|moof)|....mdat",  # also MP4 and 3GP
}
_UNSUPPORTED_PATTERNS = {  # other files found in image folders; checked first, because some begin like a supported format
    "a camera raw file: convert it to JPEG or TIFF first":
        rb"(II\*\0|MM\0\*)....CR\x02|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|....ftypcrx |\0MRM",
    "a BigTIFF: save it as TIFF or PNG": rb"II\+\0|MM\0\+",
    "a Photoshop file: save it as PNG": rb"8BPS",
    "a GIMP file: save it as PNG": rb"gimp xcf",
    "a JPEG XL image: save it as PNG": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a JPEG XR image: save it as PNG": rb"II\xbc",
    "a high dynamic range image: save it as PNG": rb"v/1\x01|#\?R",
    "a PNM image: save it as PNG": rb"P[1-7][\s#]",
    "an icon: save it as PNG": rb"\0\0[\x01\x02]\0",
    "an SVG drawing: save it as PNG": rb"(?i)\s*(<\?xml.{0,2000}?)?<svg",
    "a PDF document: save its images as PNG": rb"%PDF",
    "a PostScript document: save its images as PNG": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a RealMedia video: convert it to MP4": rb"\.RMF",
    "an MXF video: convert it to MP4": rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",
    "raw H.264 or HEVC video without a container: convert it to MP4": rb"\0?\0\0\x01[\x67\x27\x40\x42\x09\x46]",
    "an audio file": rb"ID3|fLaC|RIFF....WAVE|\xff[\xfa\xfb\xf1\xf3\xf9]|#!AMR",
    "an archive: unpack it first": rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|.{257}ustar",
    "a DICOM medical image: save it as PNG": rb".{128}DICM",
    "a NumPy array: save it as PNG": rb"\x93NUMPY",
    "macOS metadata (such as ._ files and .DS_Store)": rb"\0\x05\x16\x07|\0\0\0\x01Bud1",
    "a web page, probably from a failed download": rb"(?i)\s*<(!doctype html|html)",
    "a playlist": rb"#EXTM3U|ffconcat|v=0\r?\n|\[playlist\]|(?i:\s*(<\?xml.{0,200}?)?<(MPD|smil|asx))",
}
_IMAGE, _VIDEO, _UNSUPPORTED = ({name: re.compile(pattern, re.DOTALL) for name, pattern in patterns.items()}
                                for patterns in (_IMAGE_PATTERNS, _VIDEO_PATTERNS, _UNSUPPORTED_PATTERNS))  # fmt: skip


class MediaError(UserError):
    """A file cannot be read as an image or video: one sentence with the reason. Callers add the path."""


def failure_reason(error: Exception) -> str:
    """Return why a file cannot be read, without its path."""
    return getattr(error, "strerror", None) or str(error)


def is_media(path: str | Path) -> bool:
    """Return whether the extension is one of an image or video; only for listing folders."""
    return Path(path).suffix.lower() in IMAGE_EXTENSIONS + VIDEO_EXTENSIONS


def media_kind(path: str | Path) -> str:
    """Return "image" or "video" by the first bytes of the file. Raises MediaError for anything else, OSError if unreadable."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe or device might block or never end
        raise MediaError("not a file: expected a regular image or video file")
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise MediaError("empty file")
    if reason := _match(_UNSUPPORTED, head):
        raise MediaError(f"not an image or video in a supported format: {reason}")
    if image_format(head):
        return "image"
    if video_demuxer(head):
        return "video"
    raise MediaError(f"not an image or video in a supported format (first bytes {head[:12]!r})")


def image_format(head: bytes | bytearray) -> str:
    """Return the format of an image by its first bytes, such as "jpeg", or ""."""
    return _match(_IMAGE, head)


def video_demuxer(head: bytes) -> str:
    """Return the name of FFmpeg's demuxer for a video by its first bytes, or ""."""
    return _match(_VIDEO, head) or ("mpegts" if packet_size(head) else "")


def _match(patterns: dict[str, re.Pattern[bytes]], head: bytes | bytearray) -> str:
    return next((name for name, pattern in patterns.items() if pattern.match(head)), "")


def packet_size(head: bytes) -> int:
    """Return the packet size of a transport stream in bytes, or 0 for any other file.

    Each packet has the sync byte "G" at its start. A recording may begin in the middle of a packet.
    """
    for size in PACKET_SIZES:
        for start in (0, 4, *range(1, size)):
            marks = head[start : start + 9 * size : size]
            if not marks.strip(b"G") and len(marks) > (1 if start in (0, 4) else 8) and head[start + 1 : start + 2] != b"G":
                return size
    return 0
