"""Format and size of a picture from its first bytes, by hand: PNG, JPEG, WebP and GIF need no decoder to be sent.

The format is what the bytes say, whatever the file is called. Everything else gives None and is Pillow's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Header:
    """``width`` and ``height`` in pixels as stored (before any EXIF rotation); ``animated``: more than one frame."""

    media_type: str
    width: int
    height: int
    animated: bool = False

    @property
    def area(self) -> int:
        """Pixels."""
        return self.width * self.height


def read_header(data: bytes) -> Header | None:
    """The header of a PNG, JPEG, WebP or GIF with a size; None for anything else or a header that is cut short."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            header = _png(data)
        elif data.startswith(b"\xff\xd8\xff"):
            header = _jpeg(data)
        elif data.startswith((b"GIF87a", b"GIF89a")):
            header = _gif(data)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            header = _webp(data)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return header if header is not None and header.area > 0 else None


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    position = 8
    while position + 8 <= len(data):  # an animated PNG has acTL before its first IDAT
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"IDAT", b"acTL", b"IEND"):
            return Header("image/png", width, height, kind == b"acTL")
        position += 12 + length
    return None


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})


def _jpeg(data: bytes) -> Header | None:
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _JPEG_BARE:
            position += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return Header("image/jpeg", width, height)
        elif marker in (0xD9, 0xDA):
            return None
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def _gif(data: bytes) -> Header | None:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    frames = 0
    while position < len(data):
        block = data[position]
        if block == 0x2C:
            frames += 1
            if frames > 1:
                break
            local = data[position + 9]
            position += 11 + (3 << ((local & 7) + 1) if local & 0x80 else 0)
        elif block == 0x21:
            position += 2
        else:
            break
        while data[position]:
            position += 1 + data[position]
        position += 1
    return Header("image/gif", width, height, frames > 1) if frames else None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return Header("image/webp", width, height, bool(data[20] & 2)) if len(data) >= 30 else None
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return Header("image/webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)) if data[20] == 0x2F else None
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("image/webp", width & 0x3FFF, height & 0x3FFF)
    return None
