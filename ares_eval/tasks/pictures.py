"""Pictures as they are sent: untouched where the server may have them as they are, else resized, once each.

A picture whose area lies within the limits and whose format every server reads (PNG, JPEG, WebP, GIF; not animated)
is sent byte for byte. Any other is scaled, aspect kept, until its area lies within the limits, and sent as PNG: the
rule of the released ARES evaluation (area first cut to the maximum, then raised to the minimum, Pillow's bicubic
filter), with its faults mended: no side ever has 0 pixels, and palette, CMYK, 16-bit, alpha (laid on white) and EXIF
rotation are handled.

`prepare` reads only the header, so the digest that the cache is keyed by costs no decoding; `data_url` encodes, in
whatever thread calls it, once per distinct picture while the memo holds it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ares_eval.tasks.picture_header import read_header
from ares_eval.types import Picture, PictureError

if TYPE_CHECKING:
    from PIL import Image

RESIZE_VERSION = "resize-1"
"""Part of a resized picture's digest; changes whenever the same source would give other pixels."""

MAX_SOURCE_PIXELS = 89_000_000
"""Pictures larger than this are refused before decoding: it is where Pillow itself begins to suspect a bomb."""

MAX_SOURCE_BYTES = 100 << 20
"""A picture file larger than this is refused; the largest of the known benchmarks is under 10 MB."""

MEMO_BYTES = 16 << 20
"""Resized pictures that are kept, encoded, for further draws and for questions that share them: about twenty of the
largest. Untouched ones cost little more than a copy to encode and are not kept."""


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """Bounds of a sent picture's area in pixels (`--min-pixels`, `--max-pixels`)."""

    min_pixels: int = 262144
    max_pixels: int = 1048576

    def __post_init__(self) -> None:
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"--min-pixels {self.min_pixels} and --max-pixels {self.max_pixels}: must be 1 <= min <= max"
            )


def target_size(width: int, height: int, limits: PixelLimits) -> tuple[int, int]:
    """The size (width, height) a picture is sent in: area within the limits, both sides at least 1.

    The aspect is kept up to rounding, except where a side would vanish or the limits leave no whole size.
    """
    area = width * height
    if limits.min_pixels <= area <= limits.max_pixels:
        return width, height
    bound = limits.max_pixels if area > limits.max_pixels else limits.min_pixels
    factor = math.sqrt(bound / area)
    wide, high = max(1, int(width * factor)), max(1, int(height * factor))
    # Truncation alone can leave the area a row short of the minimum: lengthen the side that distorts least.
    while wide * high < limits.min_pixels:
        grow_wide = abs((wide + 1) * height - width * high) <= abs(wide * height - width * (high + 1))
        wide, high = (wide + 1, high) if grow_wide else (wide, high + 1)
    if wide * high > limits.max_pixels:
        if wide >= high:
            high = min(high, limits.max_pixels)
            wide = max(1, limits.max_pixels // high)
        else:
            wide = min(wide, limits.max_pixels)
            high = max(1, limits.max_pixels // wide)
    return wide, high


class Prepared:
    """A picture ready to be sent (types.PreparedPicture). Holds no bytes: they are read again when encoding."""

    __slots__ = ("_picture", "_sha256", "digest", "media_type", "size", "untouched")

    def __init__(self, picture: Picture, sha256: str, media_type: str, size: tuple[int, int], untouched: bool) -> None:
        self._picture = picture
        self._sha256 = sha256
        self.media_type = media_type
        self.size = size
        self.untouched = untouched
        if untouched:
            self.digest = sha256
        else:
            transformation = f"{RESIZE_VERSION}:{sha256}:{size[0]}x{size[1]}"
            self.digest = hashlib.sha256(transformation.encode()).hexdigest()

    def data_url(self) -> str:
        """``data:<media type>;base64,...``. Raises PictureError where the picture cannot be read or decoded."""
        return _MEMO.get(self.digest, self._encode, keep=not self.untouched)

    def content(self) -> bytes:
        """The bytes that are sent."""
        data = _read(self._picture)
        if hashlib.sha256(data).hexdigest() != self._sha256:
            raise PictureError(f"{self._picture.source}: changed while it was being used")
        return data if self.untouched else _resized(data, self.size, self._picture.source)

    def _encode(self) -> str:
        return f"data:{self.media_type};base64," + base64.b64encode(self.content()).decode("ascii")


def prepare(picture: Picture, limits: PixelLimits) -> Prepared:
    """Read a picture's header and decide how it will be sent. Raises PictureError; costs no decoding."""
    data = _read(picture)
    sha256 = hashlib.sha256(data).hexdigest()
    header = read_header(data)
    if header is not None and not header.animated and limits.min_pixels <= header.area <= limits.max_pixels:
        return Prepared(picture, sha256, header.media_type, (header.width, header.height), untouched=True)
    width, height = (header.width, header.height) if header is not None else _decoder_size(data, picture.source)
    if width * height > MAX_SOURCE_PIXELS:
        raise PictureError(f"{picture.source}: {width} x {height} pixels are more than {MAX_SOURCE_PIXELS}")
    return Prepared(picture, sha256, "image/png", target_size(width, height, limits), untouched=False)


class _Making:
    """A text under way, for those who wait for it; None where its maker failed."""

    __slots__ = ("done", "text")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.text: str | None = None


class Memo:
    """Texts by digest, at most ``limit`` characters in all (least recently used go first), each made once at a time.

    Threads that ask for a digest which is being made wait for it instead of making it again; if its maker fails,
    the next of them tries. A text that is not kept is handed to those who wait for it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._making: dict[str, _Making] = {}
        self._lock = threading.Lock()

    def get(self, digest: str, make: Callable[[], str], *, keep: bool = True) -> str:
        """The text of ``digest``, made by ``make`` where it is not held; with ``keep`` it is held afterwards."""
        while True:
            with self._lock:
                text = self._texts.get(digest)
                if text is not None:
                    self._texts.move_to_end(digest)
                    return text
                making = self._making.get(digest)
                if making is None:
                    mine = self._making[digest] = _Making()
                    break
            making.done.wait()
            if making.text is not None:
                return making.text
        try:
            mine.text = make()
            if keep:
                with self._lock:
                    self._keep(digest, mine.text)
            return mine.text
        finally:
            with self._lock:
                self._making.pop(digest).done.set()

    def _keep(self, digest: str, text: str) -> None:
        if len(text) > self._limit // 4:
            return
        self._texts[digest] = text
        self._held += len(text)
        while self._held > self._limit:
            _, dropped = self._texts.popitem(last=False)
            self._held -= len(dropped)


_MEMO = Memo(MEMO_BYTES)


def _read(picture: Picture) -> bytes:
    try:
        data = picture.read()
    except OSError as error:
        raise PictureError(f"{picture.source}: {error.strerror or error}") from error
    if not data:
        raise PictureError(f"{picture.source}: is empty")
    if len(data) > MAX_SOURCE_BYTES:
        raise PictureError(f"{picture.source}: {len(data)} bytes are more than {MAX_SOURCE_BYTES}")
    return data


def _open(data: bytes, source: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise PictureError(f"{source}: not a picture in a known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{source}: {error}") from error


def _decoder_size(data: bytes, source: str) -> tuple[int, int]:
    with _open(data, source) as image:
        return image.size


def _resized(data: bytes, size: tuple[int, int], source: str) -> bytes:
    from PIL import Image

    with _open(data, source) as image:
        if image.size[0] * image.size[1] > MAX_SOURCE_PIXELS:
            raise PictureError(f"{source}: {image.size[0]} x {image.size[1]} pixels are too many")
        try:
            # Lets libjpeg decode at 1/2, 1/4 or 1/8 where that is still no smaller than what is sent.
            image.draft(None, size)
            image.load()
            resized = _opaque(image).resize(size, Image.Resampling.BICUBIC)
            turn = _TURNS.get(image.getexif().get(0x0112, 1))
            if turn is not None:
                resized = resized.transpose(Image.Transpose[turn])
            out = io.BytesIO()
            resized.save(out, format="PNG", compress_level=1, icc_profile=None)
        except (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
            raise PictureError(f"{source}: {error}") from error
    return out.getvalue()


_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation -> the transposition that shows the picture upright (EXIF 2.3, tag 0x0112)."""


def _opaque(image: Image.Image) -> Image.Image:
    """The picture as 8-bit grey or RGB; transparent parts show white, the ground that figures are drawn for."""
    from PIL import Image

    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255 instead of scaling.
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")
