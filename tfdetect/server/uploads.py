"""What a client sends: files in a private folder under random names, which ends with the request."""

import asyncio
import hashlib
import re
import secrets
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from tfdetect.data import headway
from tfdetect.data.media.sniff import MediaError, media_kind
from tfdetect.server.limits import ServeLimits

ACCEPTED = "JPEG, PNG, WebP, TIFF, BMP, HEIC, AVIF, JPEG 2000 and GIF, MP4, MOV, MKV, WebM, AVI, MPEG, Ogg, FLV, WMV"
MAX_NAME = 120  # characters
BLOCK = 2**20
FIELDS = 100  # in a form besides files
PATH = re.compile(r"(?<![\w./:\\])(?:[A-Za-z]:)?(?:[\\/][^\s\\/:'\"<>|,;()]+){2,}[\\/]?")
FLAGS = {"--data.limits.": "--limits.", "--data.timeout": "--limits.decode_seconds"}  # of other commands -> of serve


@dataclass(frozen=True)
class Upload:
    """One file of a request."""

    name: str
    """What the client calls it, cleaned; only ever shown."""
    path: Path
    bytes: int
    sha256: str
    kind: Literal["image", "video"] | None
    error: str | None
    """Why it is neither."""


@dataclass(frozen=True)
class Form:
    """The files and models of a request. Close it to delete the files."""

    files: Sequence[Upload]
    models: Sequence[str]
    folder: "tempfile.TemporaryDirectory[str]" = field(repr=False)

    def frames(self) -> tuple[int, int] | None:
        """Return how many frames of how many have been decoded of the videos that are being decoded; None if there is none."""
        return headway.read(Path(self.folder.name))

    def close(self) -> None:
        """Delete the files, and what decoders left beside them."""
        self.folder.cleanup()


async def receive(request: Request, limits: ServeLimits, files: int | None = None) -> Form:
    """Read the form of a request, with at most `files` files. Its size is limited by `guard.Body`.

    While it arrives, Starlette keeps files in memory or in temporary files without a name. Raises HTTPException: 400 for a form
    that cannot be read, or has no file or too many; 415 if none of its files is an image or video; 503 if the disk is full.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "Expected a form (multipart/form-data) with a field file.")
    try:
        async with request.form(max_files=files or limits.files, max_fields=FIELDS, max_part_size=1000) as form:
            return await store(form)
    except OSError as error:
        raise HTTPException(503, "The server has no room for the file: try again later.", {"Retry-After": "60"}) from error


async def store(form: FormData) -> Form:
    """Write the files of a form to a folder that only this user can enter. Raises HTTPException as `receive` does."""
    sent, models = form.getlist("file"), [str(name) for name in form.getlist("model")]
    given = [each for each in sent if isinstance(each, UploadFile)]
    if not given or len(given) < len(sent):
        raise HTTPException(400, "The field file must be a file: an image or a video.")
    folder = tempfile.TemporaryDirectory(prefix="tfdetect-", ignore_cleanup_errors=True)
    try:
        saved = [await asyncio.to_thread(save, each.file, each.filename or "", Path(folder.name)) for each in given]
        refuse_others(saved)
    except BaseException:
        folder.cleanup()
        raise
    return Form(saved, list(dict.fromkeys(models)), folder)


def save(source: IO[bytes], name: str, folder: Path) -> Upload:
    """Write a file below a folder under a random name, and look at its first bytes."""
    path, digest = folder / secrets.token_hex(8), hashlib.sha256()
    with open(path, "xb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
    kind, error = None, None
    try:
        kind = media_kind(path)
    except MediaError as reason:
        error = str(reason)
    return Upload(clean_name(name), path, path.stat().st_size, digest.hexdigest(), kind, error)  # type: ignore[arg-type]


def refuse_others(files: Sequence[Upload]) -> None:
    """Raise HTTPException 415 if none of the files is an image or video."""
    if all(each.kind is None for each in files):
        reasons = "; ".join(f"{each.name}: {each.error}" for each in files)
        raise HTTPException(415, f"{reasons}. Accepted are {ACCEPTED}.")


def clean_name(name: str) -> str:
    """Return the last part of a client's file name without characters that steer a terminal or the direction of text."""
    last = re.split(r"[\\/]", name)[-1]
    shown = "".join(char for char in unicodedata.normalize("NFC", last) if char.isprintable()).strip()
    return shown[:MAX_NAME] or "file"


def without_paths(text: str, upload: Upload) -> str:
    """Return a message about a file without paths of the server, and with the flags of `serve`."""
    text = text.replace(str(upload.path), upload.name).replace(str(upload.path.parent), "a folder")
    for flag, own in FLAGS.items():
        text = text.replace(flag, own)
    return PATH.sub("a file", text)
