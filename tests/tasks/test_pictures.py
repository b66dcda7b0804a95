"""Pictures: sent untouched or resized, never with 0 pixels, known by a digest that costs no decoding, encoded once."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ares_eval.tasks import pictures
from ares_eval.tasks.picture_header import Header, read_header
from ares_eval.tasks.pictures import Memo, PixelLimits, prepare, target_size
from ares_eval.types import Picture, PictureError
from tests.tasks import tiny

SMALL = PixelLimits(100, 10_000)


def picture(data: bytes) -> Picture:
    return Picture("a picture", lambda: data)


def sent(data: bytes, limits: PixelLimits = SMALL) -> tuple[str, bytes]:
    head, _, body = prepare(picture(data), limits).data_url().partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body, validate=True)


def opened(data: bytes, limits: PixelLimits = SMALL) -> Image.Image:
    kind, content = sent(data, limits)
    assert kind == "image/png"
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.format == "PNG"
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


# ---------------------------------------------------------------- sizes


sides = st.integers(1, 40_000)


@given(sides, sides, st.integers(1, 3_000_000), st.integers(0, 3_000_000))
def test_the_sent_size_has_no_empty_side_and_an_area_within_the_limits(
    width: int, height: int, least: int, more: int
) -> None:
    limits = PixelLimits(least, least + more)
    wide, high = target_size(width, height, limits)
    assert wide >= 1
    assert high >= 1
    assert wide * high <= limits.max_pixels
    # Two whole sides cannot meet every area: within one row or column of the minimum is as near as limits allow.
    assert wide * high + max(wide, high) > limits.min_pixels
    if limits.min_pixels <= width * height <= limits.max_pixels:
        assert (wide, high) == (width, height)


@given(st.integers(16, 8_000), st.integers(16, 8_000))
def test_the_default_limits_are_always_met_and_keep_the_aspect(width: int, height: int) -> None:
    limits = PixelLimits()
    wide, high = target_size(width, height, limits)
    assert limits.min_pixels <= wide * high <= limits.max_pixels
    if max(width, height) <= 20 * min(width, height):
        assert abs(wide / high / (width / height) - 1) < 0.05


@pytest.mark.parametrize("limits", [(0, 5), (-1, 5), (6, 5)])
def test_limits_that_contradict_themselves(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="min-pixels"):
        PixelLimits(*limits)


# ---------------------------------------------------------------- untouched


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("image/png", {}),
    "JPEG": ("image/jpeg", {}),
    "GIF": ("image/gif", {}),
    "WEBP": ("image/webp", {}),
}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 120), st.integers(1, 120), st.booleans(), st.booleans())
def test_headers_are_read_as_pillow_reads_them(kind: str, width: int, height: int, lossless: bool, alpha: bool) -> None:
    mode = "RGBA" if alpha and kind in ("PNG", "WEBP") else "RGB"
    options = {"lossless": lossless} if kind == "WEBP" else {"progressive": lossless} if kind == "JPEG" else {}
    data = encoded(Image.new(mode, (width, height), "red"), kind, **options)
    assert read_header(data) == Header(FORMATS[kind][0], width, height, False)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_picture_within_the_limits_is_sent_byte_for_byte(kind: str) -> None:
    data = encoded(Image.effect_noise((80, 60), 50).convert("RGB"), kind, **FORMATS[kind][1])
    prepared = prepare(picture(data), SMALL)
    assert prepared.untouched
    assert prepared.digest == hashlib.sha256(data).hexdigest()
    assert sent(data) == (FORMATS[kind][0], data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_sent_as_its_first_picture(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, loop=0)
    header = read_header(data)
    assert header is not None
    assert header.animated
    assert opened(data).convert("RGB").getpixel((3, 3)) == pytest.approx((255, 0, 0), abs=3)


def test_the_bytes_and_not_the_name_say_what_a_picture_is(tmp_path: Path) -> None:
    path = tmp_path / "really_a_jpeg.png"
    path.write_bytes(encoded(Image.new("RGB", (30, 30)), "JPEG"))
    assert prepare(Picture(str(path), path.read_bytes), SMALL).data_url().startswith("data:image/jpeg;base64,")


@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]), st.integers(0, 400), st.binary(max_size=8))
def test_cut_or_spoilt_headers_raise_nothing_but_picture_errors(kind: str, cut: int, more: bytes) -> None:
    data = encoded(Image.new("RGB", (20, 20), "red"), kind)[:cut] + more
    read_header(data)
    try:
        sent(data)
    except PictureError as error:
        assert "a picture" in str(error)


# ---------------------------------------------------------------- resized


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "La", "RGBa", "HSV", "LAB"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(3, 3), (300, 200)])
def test_every_mode_is_sent(mode: str, size: tuple[int, int]) -> None:
    image = Image.new(mode, size)
    kind = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16") else "TIFF"
    try:
        data = encoded(image, kind)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"this Pillow writes no file of mode {mode}")
    made = opened(data)
    assert made.mode in ("L", "RGB")
    assert SMALL.min_pixels <= made.width * made.height <= SMALL.max_pixels


def test_cmyk_keeps_its_colours() -> None:
    data = encoded(Image.new("RGB", (300, 300), (200, 30, 30)).convert("CMYK"), "JPEG", quality=95)
    assert opened(data).getpixel((9, 9)) == pytest.approx((200, 30, 30), abs=12)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    image = Image.new("I;16", (4, 4), 32_896)
    assert opened(encoded(image, "PNG")).getpixel((5, 5)) == pytest.approx(128, abs=1)


def test_transparency_shows_white() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert opened(encoded(clear, "PNG")).getpixel((5, 5)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0] * 256)
    assert opened(encoded(palette, "PNG", transparency=0)).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied_as_pillow_applies_it(orientation: int, kind: str) -> None:
    from PIL import ImageOps

    image = Image.new("RGB", (320, 160), "white")
    image.paste((255, 0, 0), (0, 0, 100, 60))
    image.paste((0, 0, 255), (220, 100, 320, 160))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, kind, exif=exif)
    made = opened(data)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize(made.size)
    assert (made.width > made.height) == (orientation < 5)
    for x, y in ((0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9), (0.5, 0.5)):
        at = (int(made.width * x), int(made.height * y))
        assert made.getpixel(at) == pytest.approx(upright.getpixel(at), abs=40)
    assert made.getexif().get(0x0112, 1) == 1


def test_extreme_aspects() -> None:
    for size in ((5_000, 1), (1, 5_000), (30_000, 2)):
        made = opened(encoded(Image.new("L", size, 128), "PNG"), PixelLimits(1, 1_000))
        assert made.width * made.height <= 1_000


def test_large_jpegs_are_decoded_small_and_look_the_same() -> None:
    gradient = Image.linear_gradient("L").resize((2_400, 1_600)).convert("RGB")
    limits = PixelLimits(1_000, 20_000)
    made = opened(encoded(gradient, "JPEG", quality=95), limits)
    plain = gradient.resize(made.size)
    difference = [abs(a - b) for a, b in zip(made.convert("L").tobytes(), plain.convert("L").tobytes(), strict=True)]
    assert sum(difference) / len(difference) < 3


def test_the_digest_is_of_source_and_size() -> None:
    data = tiny.png(5, 5)
    one, same = prepare(picture(data), SMALL), prepare(picture(data), PixelLimits(100, 20_000))
    other = prepare(picture(data), PixelLimits(400, 10_000))
    assert one.digest == same.digest != other.digest
    assert one.digest != prepare(picture(tiny.png(5, 5, "blue")), SMALL).digest


# ---------------------------------------------------------------- hostile pictures


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb(60_000, 60_000), "pixels"),
        (bomb(2_000_000_000, 2_000_000_000), "pixels"),
        (bomb(300, 300), ""),
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "known format"),
        (tiny.png(300, 300)[:-40], ""),
        (b"\x00" * 2_000, "known format"),
    ],
)
def test_what_is_no_sound_picture_is_a_picture_error(data: bytes, words: str) -> None:
    with pytest.raises(PictureError) as caught:
        sent(data)
    assert words in str(caught.value)


def test_a_picture_that_cannot_be_read_or_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with pytest.raises(PictureError, match="No such file"):
        prepare(Picture(str(path), path.read_bytes), SMALL)
    path.write_bytes(tiny.png(30, 31))
    prepared = prepare(Picture(str(path), path.read_bytes), SMALL)
    path.write_bytes(tiny.png(31, 30))
    with pytest.raises(PictureError, match="changed"):
        prepared.data_url()


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_SOURCE_BYTES", 100)
    with pytest.raises(PictureError, match="bytes"):
        prepare(picture(tiny.png(300, 300) + bytes(100)), SMALL)


# ---------------------------------------------------------------- once per distinct picture


def together(count: int, call: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = call(number)
        except PictureError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_that_want_one_picture_encode_it_once() -> None:
    made: list[int] = []
    gate = threading.Event()

    def make() -> str:
        made.append(1)
        gate.wait(0.05)
        return "text"

    memo = Memo(1_000)
    assert together(16, lambda _: memo.get("k", make)) == ["text"] * 16
    assert len(made) == 1


def test_after_a_failure_the_next_one_tries() -> None:
    tries: list[int] = []

    def make() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise PictureError("no")
        return "text"

    memo = Memo(1_000)
    results = together(6, lambda _: memo.get("k", make))
    assert sum(isinstance(result, PictureError) for result in results) == 1
    assert results.count("text") == 5
    assert len(tries) == 2


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400)), max_size=60))
def test_the_memo_holds_no_more_than_its_bound(asked: list[tuple[int, int]]) -> None:
    memo = Memo(1_000)
    for key, size in asked:
        text = memo.get(f"{key}:{size}", lambda size=size: "x" * size)
        assert text == "x" * size
        assert memo._held == sum(map(len, memo._texts.values())) <= 1_000


def test_resizing_the_same_picture_twice_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.effect_noise((200, 200), 60), "PNG")
    one = prepare(picture(data), SMALL).content()
    monkeypatch.setattr(pictures, "_MEMO", Memo(0))
    assert prepare(picture(data), SMALL).content() == one == sent(data)[1]


def test_what_is_not_kept_is_made_once_for_those_who_wait_and_then_again() -> None:
    memo, made, waiting = Memo(1000), [], threading.Event()

    def make() -> str:
        waiting.wait(5)
        made.append(1)
        return "text"

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(memo.get, "a", make, keep=False) for _ in range(8)]
        time.sleep(0.05)
        waiting.set()
        assert [future.result() for future in futures] == ["text"] * 8
    assert len(made) == 1
    assert memo.get("a", make, keep=False) == "text"
    assert len(made) == 2
