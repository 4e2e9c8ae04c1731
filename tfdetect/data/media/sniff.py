"""What a file is: its first bytes decide, never its extension. The extensions are for those who list a folder."""

import os
import re
import stat
from pathlib import Path

from tfdetect.errors import UserError

IMAGES = (".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".heic", ".heif",
          ".hif", ".heics", ".heifs", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")  # fmt: skip
VIDEOS = (".gif", ".mp4", ".m4v", ".mp4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".divx",
          ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".m2p", ".vob", ".ts", ".mts", ".m2t", ".m2ts", ".ogv", ".ogg", ".ogm", ".wmv",
          ".asf", ".flv", ".dv")  # fmt: skip
HEAD = 4096  # bytes that decide
PACKETS = (188, 192, 204)  # bytes of one in a transport stream: plain, with the time of a disc's or camcorder's, with a checksum

_IMAGES = {
    "jpeg": rb"\xff\xd8\xff",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
    "tiff": rb"II\*\0|MM\0\*",
    "jpeg2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "heif": rb"\0\0..ftyp(hei[cmsx]|hev[cmsx]|mif[123]|msf1|miaf|avi[fs])",
    "bmp": rb"BM.{12}.\0\0\0",
}
_VIDEOS = {  # by the names of FFmpeg's demuxers: which one opens a file, these bytes say, not FFmpeg, which heeds extensions
    "gif": rb"GIF8[79]a",
    "avi": rb"RIFF....AVI ",
    "matroska": rb"\x1aE\xdf\xa3",
    "mpeg": rb"\0\0\x01\xba",
    "mpegvideo": rb"\0\0\x01\xb3",
    "ogg": rb"OggS",
    "flv": rb"FLV\x01",
    "dv": rb"\x1f\x07\0",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c",  # which is also WMV
    "mov": rb"\0\0..ftyp|\0...(moov|free|skip|wide|pnot|styp|sidx|moof)|....mdat",  # which is also MP4 and 3GP
}
_NOT_READ = {  # what else lies in folders of pictures: these first, for some begin like a kind that is read
    "a camera raw file: develop it first, and save it as JPEG or TIFF":
        rb"(II\*\0|MM\0\*)....CR\x02|IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb|....ftypcrx |\0MRM",
    "a BigTIFF: save it as TIFF or PNG": rb"II\+\0|MM\0\+",
    "a Photoshop file: save it as PNG": rb"8BPS",
    "a GIMP file: save it as PNG": rb"gimp xcf",
    "a JPEG XL picture: save it as PNG": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a JPEG XR picture: save it as PNG": rb"II\xbc",
    "a high dynamic range picture: save it as PNG": rb"v/1\x01|#\?R",
    "a PNM picture: save it as PNG": rb"P[1-7][\s#]",
    "an icon: save it as PNG": rb"\0\0[\x01\x02]\0",
    "a drawing, SVG: save it as PNG": rb"(?i)\s*(<\?xml.{0,2000}?)?<svg",
    "a PDF document: save its pictures as PNG": rb"%PDF",
    "a PostScript document": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a RealMedia video: convert it to MP4": rb"\.RMF",
    "an MXF video: convert it to MP4": rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",
    "raw H.264 or HEVC video without a container: put it into MP4": rb"\0?\0\0\x01[\x67\x27\x40\x42\x09\x46]",
    "sound without pictures": rb"ID3|fLaC|RIFF....WAVE|\xff[\xfa\xfb\xf1\xf3\xf9]|#!AMR",
    "an archive: unpack it first": rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|.{257}ustar",
    "a medical picture, DICOM: save it as PNG": rb".{128}DICM",
    "a NumPy array: save it as PNG": rb"\x93NUMPY",
    "the notes of macOS on a file, no picture": rb"\0\x05\x16\x07|\0\0\0\x01Bud1",
    "a web page, as left by a failed download": rb"(?i)\s*<(!doctype html|html)",
    "a playlist": rb"#EXTM3U|ffconcat|v=0\r?\n|\[playlist\]|(?i:\s*(<\?xml.{0,200}?)?<(MPD|smil|asx))",
}
_STILL, _MOVING, _REFUSED = ({name: re.compile(pattern, re.DOTALL) for name, pattern in kinds.items()}
                             for kinds in (_IMAGES, _VIDEOS, _NOT_READ))  # fmt: skip


class MediaError(UserError):
    """One sentence: what came, what was expected. It never names the path: the caller does."""


def is_media(path: str | Path) -> bool:
    """Say whether the extension is one of an image or a video: for listing folders only."""
    return Path(path).suffix.lower() in IMAGES + VIDEOS


def media_kind(path: str | Path) -> str:
    """Return "image" or "video" by the first bytes. Raises MediaError for anything else."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device would block or never end
        raise MediaError("not a file: a regular file of an image or video was expected")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise MediaError("empty file")
    if reason := _found(_REFUSED, head):
        raise MediaError(f"not an image or video that is read here: {reason}")
    if image(head):
        return "image"
    if video(head):
        return "video"
    raise MediaError(f"not an image or video that is read here (first bytes {head[:12]!r})")


def image(head: bytes | bytearray) -> str:
    """The format of an image by its first bytes, such as "jpeg", or ""."""
    return _found(_STILL, head)


def video(head: bytes) -> str:
    """The name of FFmpeg's demuxer for a video by its first bytes, or ""."""
    return _found(_MOVING, head) or ("mpegts" if packet(head) else "")


def _found(kinds: dict[str, re.Pattern[bytes]], head: bytes | bytearray) -> str:
    return next((name for name, pattern in kinds.items() if pattern.match(head)), "")


def packet(head: bytes) -> int:
    """The length of a transport stream's packets, each of which says G at its start, or 0. A recording may begin within one."""
    for size in PACKETS:
        for start in (0, 4, *range(1, size)):
            marks = head[start : start + 9 * size : size]
            if not marks.strip(b"G") and len(marks) > (1 if start in (0, 4) else 8) and head[start + 1 : start + 2] != b"G":
                return size
    return 0
