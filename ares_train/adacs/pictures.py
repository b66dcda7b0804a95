"""The pictures of questions: found, read whole, known by content, and known again after scaling or re-encoding.

A picture's likeness is a 64-bit dHash (9 x 8 grey cells, one bit for each step to the right that darkens, with a dead
zone so that the noise of JPEG does not count), its shape, and a thumbnail of 16 x 16 that confirms what the hash
suggests: line drawings on white have like hashes, but not like thumbnails. Nearly blank pictures have no likeness.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ares_eval.tasks.picture_header import read_header
from ares_eval.tasks.pictures import MAX_SOURCE_BYTES, MAX_SOURCE_PIXELS
from ares_eval.types import Picture, PictureError

MAX_ASPECT = 200
"""Qwen's image processor refuses longer strips."""

SIDE = 16
"""Thumbnails are SIDE x SIDE."""

DEAD_ZONE = 1
"""Grey levels (of 255) by which neighbouring cells may differ without a step."""

MIN_DEVIATION = 2.0
"""Standard deviation of the thumbnail, in grey levels, below which a picture is nearly blank."""

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    LookupError,
    ArithmeticError,
    TypeError,
    RuntimeError,
    struct.error,
)
"""What Pillow's decoders raise on broken bytes (found by fuzzing)."""

_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp"}


@dataclass(frozen=True, slots=True)
class Likeness:
    """``dhash``: 64 bits. ``aspect``: natural logarithm of width / height. ``thumbnail``: uint8 [SIDE * SIDE]."""

    dhash: int
    aspect: float
    thumbnail: np.ndarray


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture that was read and decoded. ``likeness`` None: nearly blank. ``suffix``: by its content."""

    sha256: str
    width: int
    height: int
    likeness: Likeness | None
    suffix: str


def look(data: bytes) -> Seen:
    """Decode a picture to its end. Raises PictureError with one word first: corrupt, too_large, aspect."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise PictureError("corrupt: empty")
    if len(data) > MAX_SOURCE_BYTES:
        raise PictureError(f"too_large: {len(data)} bytes")
    header = read_header(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_SOURCE_PIXELS:
                raise PictureError(f"too_large: {width} x {height} pixels")
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise PictureError(f"aspect: {width} x {height} pixels")
            image.draft("L", (256, 256))  # libjpeg decodes large pictures at a fraction, to the end all the same
            image.load()
            grey = _grey(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PictureError("corrupt: not a picture in a known format") from None
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise PictureError(f"corrupt: {' '.join(str(error).split())[:120]}") from error
    suffix = _SUFFIX.get(header.media_type if header is not None else "", ".img")
    return Seen(hashlib.sha256(data).hexdigest(), width, height, likeness(grey), suffix)


def likeness(grey: Any) -> Likeness | None:
    """The likeness of a picture in grey (PIL mode L); None where it is nearly blank."""
    from PIL import Image

    thumbnail = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8).reshape(-1)
    if float(thumbnail.std()) < MIN_DEVIATION:
        return None
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    steps = (cells[:, :-1] > cells[:, 1:] + DEAD_ZONE).reshape(-1)
    dhash = int.from_bytes(np.packbits(steps).tobytes(), "big")
    return Likeness(dhash, float(np.log(grey.width / grey.height)), thumbnail)


def _grey(image: Any) -> Any:
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    elif image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 257))
    return image.convert("L")


def correlation(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N] Pearson correlation of a thumbnail [K] with others [N, K]."""
    a = one.astype(np.float64) - one.mean()
    b = others.astype(np.float64) - others.mean(axis=1, keepdims=True)
    found: np.ndarray = (b @ a) / np.maximum(np.linalg.norm(a) * np.linalg.norm(b, axis=1), 1e-9)
    return found


# ---------------------------------------------------------------- cells of rows


@dataclass(frozen=True, slots=True)
class Found:
    """A picture of a row: its bytes, and the file it lies in where it is one already."""

    data: bytes
    file: Path | None


def cells(value: Any) -> list[Any]:
    """The picture cells in a column's value: a cell, a list of them, or nothing."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, list | tuple):
        return [one for cell in value for one in cells(cell)]
    return [value]


def states(value: Any, root: Path | None) -> list[dict[str, Any]]:
    """``{path, size, mtime}`` of every file below ``root`` that a picture column's value names, as it is now.

    ``mtime`` in nanoseconds; both are -1 for a file that is not there.
    """
    found = []
    for cell in cells(value):
        inner = cell
        while isinstance(inner, dict):
            inner = _inner(inner)
        if isinstance(inner, str) and root is not None and not inner.startswith("data:") and "://" not in inner:
            with contextlib.suppress(PictureError):
                found.append(state(_inside(inner, root)))
    return found


def state(path: Path) -> dict[str, Any]:
    """``{path, size, mtime}`` of a file; see ``states``."""
    try:
        there = path.stat()
    except OSError:
        return {"path": str(path), "size": -1, "mtime": -1}
    return {"path": str(path), "size": there.st_size, "mtime": there.st_mtime_ns}


def read(cell: Any, root: Path | None) -> Found:
    """The picture in a cell: bytes, a Picture, base64, ``{bytes, path}``, ``{image: ...}``, or a path below ``root``.

    Raises PictureError: missing, outside (a path that leads out of ``root``), url (nothing is fetched), corrupt.
    """
    if isinstance(cell, bytes):
        return Found(cell, None)
    if isinstance(cell, Picture):
        try:
            return Found(cell.read(), None)
        except OSError as error:
            raise PictureError(f"missing: {error}") from error
    if isinstance(cell, dict):
        inner = _inner(cell)
        if inner is None or isinstance(inner, dict):
            raise PictureError("missing: a picture cell with neither bytes nor path")
        return read(inner, root)
    if not isinstance(cell, str):
        raise PictureError(f"corrupt: a picture cell of type {type(cell).__name__}")
    if cell.startswith("data:"):
        try:
            return Found(base64.b64decode(cell.partition(",")[2], validate=True), None)
        except (binascii.Error, ValueError) as error:
            raise PictureError(f"corrupt: base64 ({error})") from error
    if "://" in cell:
        raise PictureError("url: pictures are not fetched; download them and set image_root")
    if root is None:
        raise PictureError("missing: rows name pictures by path; set image_root to the folder that they lie in")
    path = _inside(cell, root)
    try:
        if path.stat().st_size > MAX_SOURCE_BYTES:
            raise PictureError(f"too_large: {path.stat().st_size} bytes")
        return Found(path.read_bytes(), path)
    except OSError as error:
        raise PictureError(f"missing: {error.strerror or error}") from error


def _inner(cell: dict[str, Any]) -> Any:
    return next((cell[name] for name in ("bytes", "path", "image", "url") if cell.get(name) is not None), None)


def _inside(name: str, root: Path) -> Path:
    if "\0" in name:
        raise PictureError("outside: not a path")
    root = root.resolve()
    path = (root / PurePosixPath(name)).resolve()
    if not path.is_relative_to(root):
        raise PictureError(f"outside: the path leads out of {root}")
    return path


def keep(data: bytes, seen: Seen, folder: Path) -> Path:
    """Where a picture that came inside of a row is kept, by content; written where it is not there yet."""
    path = folder / seen.sha256[:2] / f"{seen.sha256}{seen.suffix}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{id(data):x}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)
    return path
