# /// script
# requires-python = ">=3.11"
# dependencies = ["transformers==5.23.0", "pillow==12.1.1", "numpy==2.4.6"]
# ///
"""Image files of every kind, and what load_image of transformers makes of each: the vectors of decode.json.

    uv run tools/gen-golden/preprocess_decode.py --out golden/vectors/preprocess/decode.json
    uv run tools/gen-golden/preprocess_decode.py --verify golden/vectors/preprocess/decode.json

The files are written here byte by byte, because no library writes the odd ones. --verify reads the committed files with
the Pillow that is installed and compares; run it with other versions as further witnesses:

    uv run --with pillow==13.0.0 tools/gen-golden/preprocess_decode.py --verify golden/vectors/preprocess/decode.json
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import struct
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers.image_utils import load_image

MAGIC = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
SAMPLES = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
NAMES = {GREY: "grey", RGB: "rgb", PALETTE: "palette", GREY_ALPHA: "grey-alpha", RGB_ALPHA: "rgb-alpha"}
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(name: bytes, body: bytes = b"", crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def ihdr(width: int, height: int, depth: int = 8, colour: int = RGB, compression: int = 0, method: int = 0, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, compression, method, interlace)


def random_samples(seed: int, width: int, height: int, depth: int, colour: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << depth, (height, width, SAMPLES[colour]))


def pack(samples: np.ndarray, depth: int) -> list[bytes]:
    """Rows of samples as the bytes of a PNG."""
    rows = []
    for row in samples.reshape(samples.shape[0], -1):
        bits = "".join(f"{int(v):0{depth}b}" for v in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(int(bits, 2).to_bytes(len(bits) // 8) if bits else b"")
    return rows


def filtered(rows: list[bytes], size: int, first: int = 0) -> bytes:
    """The rows with every filter in turn, beginning with number first."""
    out, above = bytearray(), bytes(len(rows[0]))
    for y, row in enumerate(rows):
        kind = (first + y) % 5
        out.append(kind)
        for i, v in enumerate(row):
            left = row[i - size] if i >= size else 0
            corner = above[i - size] if i >= size else 0
            p = left + above[i] - corner
            near = min((abs(p - left), 0, left), (abs(p - above[i]), 1, above[i]), (abs(p - corner), 2, corner))[2]
            out.append((v - (0, left, above[i], (left + above[i]) // 2, near)[kind]) & 255)
        above = row
    return bytes(out)


def image_data(samples: np.ndarray, depth: int, interlaced: bool = False) -> bytes:
    size = max(1, samples.shape[2] * depth // 8)
    if not interlaced:
        return filtered(pack(samples, depth), size)
    parts = [samples[top::down, left::right] for top, left, down, right in ADAM7]
    return b"".join(filtered(pack(p, depth), size, first=i) for i, p in enumerate(parts) if p.size)


def png(samples: np.ndarray, depth: int = 8, colour: int = RGB, interlaced: bool = False, before: bytes = b"", after: bytes = b"", end: bytes = chunk(b"IEND")) -> bytes:
    height, width = samples.shape[:2]
    head = MAGIC + chunk(b"IHDR", ihdr(width, height, depth, colour, interlace=int(interlaced)))
    return head + before + chunk(b"IDAT", zlib.compress(image_data(samples, depth, interlaced), 9)) + after + end


def palette(count: int) -> bytes:
    return np.random.default_rng(count).integers(0, 256, 3 * count).astype(np.uint8).tobytes()


def tiff(orientation: int, kind: int = 3, count: int = 1, order: str = "<", entries: bytes = b"", number: int = 1) -> bytes:
    """An EXIF block with one tag, the orientation."""
    head = b"II*\x00" if order == "<" else b"MM\x00*"
    value = struct.pack(order + {3: "HH", 4: "I", 1: "BBBB"}[kind], *{3: (orientation, 0), 4: (orientation,), 1: (orientation, 0, 0, 0)}[kind])
    return head + struct.pack(order + "I", 8) + struct.pack(order + "H", number) + entries + struct.pack(order + "HHI", 0x0112, kind, count) + value + struct.pack(order + "I", 0)


def xmp(text: str, packed: bool = False) -> bytes:
    body = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {text}</x:xmpmeta>'.encode()
    return chunk(b"iTXt", b"XML:com.adobe.xmp\0" + (b"\1\0" if packed else b"\0\0") + b"\0\0" + (zlib.compress(body) if packed else body))


def raw_profile(block: bytes) -> bytes:
    digits = block.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return f"\nexif\n{len(block):8d}\n{lines}\n".encode()


def every_kind() -> dict[str, bytes]:
    files = {}
    for colour, depths in DEPTHS.items():
        for depth in depths:
            before = chunk(b"PLTE", palette(1 << depth)) if colour == PALETTE else b""
            for interlaced in (False, True):
                name = f"{NAMES[colour]}-{depth}" + ("-interlaced" if interlaced else "")
                files[name] = png(random_samples(depth, 13, 11, depth, colour), depth, colour, interlaced, before)
    for width, height in ((1, 1), (2, 2), (3, 5), (1, 9), (9, 1), (4, 3), (5, 5), (8, 8)):
        files[f"interlaced-{width}x{height}"] = png(random_samples(1, width, height, 8, RGB), interlaced=True)
        files[f"interlaced-grey-1-{width}x{height}"] = png(random_samples(1, width, height, 1, GREY), 1, GREY, True)
    return files


def transparency() -> dict[str, bytes]:
    files = {}
    for colour, depths in ((GREY, (1, 2, 4, 8, 16)), (RGB, (8, 16))):
        for depth in depths:
            samples = random_samples(3, 9, 7, depth, colour)
            key = b"".join(struct.pack(">H", int(v)) for v in samples[0, 0])
            files[f"{NAMES[colour]}-{depth}-trns"] = png(samples, depth, colour, before=chunk(b"tRNS", key))
    samples = random_samples(3, 9, 7, 4, PALETTE)
    files["palette-4-trns-one"] = png(samples, 4, PALETTE, before=chunk(b"PLTE", palette(16)) + chunk(b"tRNS", b"\xff\0"))
    files["palette-4-trns-many"] = png(samples, 4, PALETTE, before=chunk(b"PLTE", palette(16)) + chunk(b"tRNS", bytes(range(0, 160, 10))))
    return files


def palettes() -> dict[str, bytes]:
    samples = random_samples(4, 9, 7, 8, PALETTE)
    few = samples % 5
    return {
        "palette-beyond-end": png(samples, 8, PALETTE, before=chunk(b"PLTE", palette(100))),
        "palette-4-beyond-end": png(samples % 16, 4, PALETTE, before=chunk(b"PLTE", palette(3))),
        "palette-missing": png(samples, 8, PALETTE),
        "palette-4-missing": png(samples % 16, 4, PALETTE),
        "palette-empty": png(samples, 8, PALETTE, before=chunk(b"PLTE")),
        "palette-of-7-bytes": png(few, 8, PALETTE, before=chunk(b"PLTE", palette(3)[:7])),
        "palette-of-300": png(samples, 8, PALETTE, before=chunk(b"PLTE", palette(300))),
        "palette-4-of-20": png(samples % 16, 4, PALETTE, before=chunk(b"PLTE", palette(20))),
        "palette-twice": png(samples, 8, PALETTE, before=chunk(b"PLTE", palette(256)) + chunk(b"PLTE", palette(255))),
        "palette-after-idat": png(samples, 8, PALETTE, before=chunk(b"PLTE", palette(256)), after=chunk(b"PLTE", palette(255))),
        "palette-in-rgb": png(random_samples(4, 9, 7, 8, RGB), before=chunk(b"PLTE", palette(9))),
    }


def chunks() -> dict[str, bytes]:
    s = random_samples(5, 9, 7, 8, RGB)
    icc = b"name\0\0" + zlib.compress(b"no real profile")
    files = {
        "gamma": chunk(b"gAMA", struct.pack(">I", 100000)),
        "gamma-short": chunk(b"gAMA", b"\0\1"),
        "srgb": chunk(b"sRGB", b"\0"),
        "srgb-empty": chunk(b"sRGB"),
        "chrm": chunk(b"cHRM", struct.pack(">8I", *range(8))),
        "chrm-odd": chunk(b"cHRM", b"\0" * 31),
        "phys": chunk(b"pHYs", struct.pack(">IIB", 1, 2, 1)),
        "phys-short": chunk(b"pHYs", b"\0" * 8),
        "iccp": chunk(b"iCCP", icc),
        "text": chunk(b"tEXt", b"Title\0text"),
        "text-without-key": chunk(b"tEXt", b"no zero"),
        "unknown-ancillary": chunk(b"abCd", b"data"),
        "unknown-critical": chunk(b"ABCD", b"data"),
        "background": chunk(b"bKGD", b"\0\1\0\2\0\3"),
        "trns-short": chunk(b"tRNS", b"\0\1"),
        "two-headers": chunk(b"IHDR", ihdr(9, 7)),
    }
    return {f"chunk-{name}": png(s, before=body) for name, body in files.items()}


def orientations() -> dict[str, bytes]:
    s = random_samples(6, 5, 3, 8, RGB)
    other = struct.pack("<HHII", 0x010F, 2, 4, 0x20434241)  # the maker, in front of the orientation
    late = chunk(b"eXIf", tiff(6))
    files = {f"exif-{i}": png(s, before=chunk(b"eXIf", tiff(i))) for i in range(10)}
    blocks = {
        "exif-big-endian": tiff(6, order=">"),
        "exif-long": tiff(6, kind=4),
        "exif-byte": tiff(6, kind=1),
        "exif-count-2": tiff(6, count=2),
        "exif-count-0": tiff(6, count=0),
        "exif-second-tag": tiff(6, entries=other, number=2),
        "exif-prefix": b"Exif\0\0" + tiff(6),
        "exif-prefix-twice": b"Exif\0\0Exif\0\0" + tiff(6),
        "exif-empty": b"",
        "exif-not-tiff": b"nonsense of no kind",
        "exif-short": b"II*\0",
        "exif-cut": tiff(6)[:20],
        "exif-too-many-tags": tiff(6, number=500),
        "exif-offset-outside": b"II*\0" + struct.pack("<I", 5000),
    }
    files |= {name: png(s, before=chunk(b"eXIf", body)) for name, body in blocks.items()}
    files |= {
        "exif-after-idat": png(s, after=late),
        "exif-after-iend": png(s, end=chunk(b"IEND") + late),
        "exif-after-idat-bad-crc": png(s, after=chunk(b"eXIf", tiff(6), crc=0)),
        "exif-grey-16": png(random_samples(6, 5, 3, 16, GREY), 16, GREY, before=late),
        "exif-palette": png(random_samples(6, 5, 3, 8, PALETTE), 8, PALETTE, before=chunk(b"PLTE", palette(256)) + late),
        "profile-ztxt": png(s, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(b"Exif\0\0" + tiff(6))))),
        "profile-text": png(s, before=chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(tiff(8)))),
        "profile-and-exif": png(s, before=chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(tiff(8))) + late),
        "profile-not-hex": png(s, before=chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nxyz\n")),
        "profile-one-line": png(s, before=chunk(b"tEXt", b"Raw profile type exif\0short")),
        "xmp-attribute": png(s, before=xmp('tiff:Orientation="6"')),
        "xmp-element": png(s, before=xmp("><tiff:Orientation>8</tiff:Orientation>")),
        "xmp-packed": png(s, before=xmp('tiff:Orientation="5"', packed=True)),
        "xmp-single-quotes": png(s, before=xmp("tiff:Orientation='5'")),
        "xmp-second": png(s, before=xmp('tiff:Orientation="?" tiff:Orientation="7"')),
        "xmp-and-exif": png(s, before=xmp('tiff:Orientation="6"') + chunk(b"eXIf", tiff(3))),
        "xmp-and-exif-without": png(s, before=xmp('tiff:Orientation="6"') + chunk(b"eXIf", tiff(3, count=0))),
        "xmp-after-idat": png(s, after=xmp('tiff:Orientation="6"')),
    }
    return files


def damage() -> dict[str, bytes]:
    s = random_samples(7, 9, 7, 8, RGB)
    raw = image_data(s, 8)
    packed = zlib.compress(raw, 9)
    head, end = MAGIC + chunk(b"IHDR", ihdr(9, 7)), chunk(b"IEND")
    good = head + chunk(b"IDAT", packed) + end

    def with_header(body: bytes, data: bytes = packed) -> bytes:
        return MAGIC + chunk(b"IHDR", body) + chunk(b"IDAT", data) + end

    return {
        "bad-crc-header": MAGIC + chunk(b"IHDR", ihdr(9, 7), crc=1) + chunk(b"IDAT", packed) + end,
        "bad-crc-text": head + chunk(b"tEXt", b"a\0b", crc=1) + chunk(b"IDAT", packed) + end,
        "bad-crc-data": head + chunk(b"IDAT", packed, crc=1) + end,
        "bad-crc-text-after": head + chunk(b"IDAT", packed) + chunk(b"tEXt", b"a\0b", crc=1) + end,
        "bad-checksum-zlib": head + chunk(b"IDAT", packed[:-1] + bytes([packed[-1] ^ 1])) + end,
        "no-checksum-zlib": head + chunk(b"IDAT", packed[:-4]) + end,
        "half-checksum-zlib": head + chunk(b"IDAT", packed[:-2]) + end,
        "no-iend": head + chunk(b"IDAT", packed),
        "no-iend-no-crc": (head + chunk(b"IDAT", packed))[:-4],
        "no-iend-half-crc": (head + chunk(b"IDAT", packed))[:-2],
        "half-iend": good[:-6],
        "trailing-bytes": good + b"trailing bytes that mean nothing",
        "garbage-for-iend": head + chunk(b"IDAT", packed) + b"\0\0\0\4!!!!data\0\0\0\0",
        "text-after-cut": head + chunk(b"IDAT", packed) + chunk(b"tEXt", b"a\0long text")[:-9],
        "gamma-after-short": head + chunk(b"IDAT", packed) + chunk(b"gAMA", b"\0") + end,
        "truncated-data": head + chunk(b"IDAT", packed)[: len(packed) // 2],
        "truncated-stream": head + chunk(b"IDAT", packed[: len(packed) // 2]) + end,
        "truncated-last-row": head + chunk(b"IDAT", zlib.compress(raw[:-1])) + end,
        "rows-missing": head + chunk(b"IDAT", zlib.compress(raw[: 4 * 28])) + end,
        "rows-too-many": head + chunk(b"IDAT", zlib.compress(raw + b"\0" * 56)) + end,
        "byte-too-many": head + chunk(b"IDAT", zlib.compress(raw + b"\0")) + end,
        "garbage-after-stream": head + chunk(b"IDAT", packed + b"garbage") + end,
        "data-in-bytes": head + b"".join(chunk(b"IDAT", bytes([b])) for b in packed) + end,
        "data-with-empty-chunks": head + chunk(b"IDAT") + chunk(b"IDAT", packed[:20]) + chunk(b"IDAT") + chunk(b"IDAT", packed[20:]) + chunk(b"IDAT") + end,
        "data-interrupted": head + chunk(b"IDAT", packed[:20]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", packed[20:]) + end,
        "data-after-text": head + chunk(b"IDAT", packed) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", b"more") + end,
        "not-zlib": head + chunk(b"IDAT", b"not a zlib stream, whatever else it may be") + end,
        "empty-data": head + chunk(b"IDAT") + end,
        "no-data": head + end,
        "only-header": head,
        "only-magic": MAGIC,
        "empty": b"",
        "text": b"This is no image.",
        "filter-5": head + chunk(b"IDAT", zlib.compress(b"\5" + raw[1:])) + end,
        "filter-255": head + chunk(b"IDAT", zlib.compress(raw[:28] + b"\xff" + raw[29:])) + end,
        "header-short": MAGIC + chunk(b"IHDR", ihdr(9, 7)[:12]) + chunk(b"IDAT", packed) + end,
        "header-long": with_header(ihdr(9, 7) + b"x"),
        "header-late": MAGIC + chunk(b"tEXt", b"a\0b") + chunk(b"IHDR", ihdr(9, 7)) + chunk(b"IDAT", packed) + end,
        "header-missing": MAGIC + chunk(b"IDAT", packed) + end,
        "width-0": with_header(ihdr(0, 7)),
        "height-0": with_header(ihdr(9, 0)),
        "size-max": with_header(ihdr(0xFFFFFFFF, 0xFFFFFFFF)),
        "size-65535": with_header(ihdr(65535, 65535)),
        "size-above-limit": with_header(ihdr(13377, 13378)),
        "size-truncated": with_header(ihdr(4000, 4000)),
        "depth-3": with_header(ihdr(9, 7, 3, GREY)),
        "depth-0": with_header(ihdr(9, 7, 0, GREY)),
        "depth-4-rgb": with_header(ihdr(9, 7, 4, RGB)),
        "depth-16-palette": with_header(ihdr(9, 7, 16, PALETTE)),
        "colour-1": with_header(ihdr(9, 7, 8, 1)),
        "colour-5": with_header(ihdr(9, 7, 8, 5)),
        "compression-1": with_header(ihdr(9, 7, compression=1)),
        "filter-method-1": with_header(ihdr(9, 7, method=1)),
        "interlace-2": with_header(ihdr(9, 7, interlace=2), zlib.compress(image_data(s, 8, True))),
        "chunk-id-not-letters": head + chunk(b"t\0xt", b"a\0b") + chunk(b"IDAT", packed) + end,
        "chunk-id-digits": head + chunk(b"t3xt", b"a\0b") + chunk(b"IDAT", packed) + end,
        "chunk-length-max": head + struct.pack(">I", 0xFFFFFFFF) + b"tEXt" + b"a\0b",
    }


def animations() -> dict[str, bytes]:
    s, t = random_samples(8, 6, 4, 8, RGB), random_samples(9, 6, 4, 8, RGB)
    head, end = MAGIC + chunk(b"IHDR", ihdr(6, 4)), chunk(b"IEND")
    first, second = zlib.compress(image_data(s, 8)), zlib.compress(image_data(t, 8))
    part = zlib.compress(image_data(s[:2, :3], 8))

    def control(number: int, width: int = 6, height: int = 4, x: int = 0, y: int = 0) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, x, y, 1, 10, 0, 0))

    count = chunk(b"acTL", struct.pack(">II", 2, 0))
    more = control(1) + chunk(b"fdAT", struct.pack(">I", 2) + second)
    return {
        "apng": head + count + control(0) + chunk(b"IDAT", first) + more + end,
        "apng-default-image": head + count + chunk(b"IDAT", first) + control(0) + chunk(b"fdAT", struct.pack(">I", 1) + second) + end,
        "apng-exif-at-end": head + count + control(0) + chunk(b"IDAT", first) + more + chunk(b"eXIf", tiff(6)) + end,
        "apng-exif-before-second": head + count + control(0) + chunk(b"IDAT", first) + chunk(b"eXIf", tiff(6)) + more + end,
        "apng-first-in-part": head + count + control(0, 3, 2, 1, 1) + chunk(b"IDAT", part) + more + end,
        "apng-no-idat": head + count + control(0) + chunk(b"fdAT", struct.pack(">I", 1) + first) + end,
        "apng-one-frame": head + chunk(b"acTL", struct.pack(">II", 1, 0)) + control(0) + chunk(b"IDAT", first) + end,
    }


def gifs() -> dict[str, bytes]:
    rng = np.random.default_rng(10)
    table = palette(256)

    def frame(width: int, height: int, colours: int = 256) -> Image.Image:
        m = Image.fromarray(rng.integers(0, colours, (height, width)).astype(np.uint8))
        m.putpalette(table)
        return m

    def save(m: Image.Image, **options) -> bytes:
        out = io.BytesIO()
        m.save(out, "GIF", **options)
        return out.getvalue()

    plain = save(frame(17, 12), optimize=False, interlace=0)
    part = bytearray(plain)
    part[6:10] = struct.pack("<HH", 20, 15)  # a larger screen around the same frame
    return {
        "gif": plain,
        "gif-interlaced": save(frame(17, 13), interlace=1),
        "gif-4-colours": save(frame(17, 12, 4)),
        "gif-transparent": save(frame(17, 12, 8), transparency=3),
        "gif-animated": save(frame(17, 12), save_all=True, append_images=[frame(17, 12), frame(17, 12)], duration=50),
        "gif-animated-transparent": save(frame(17, 12, 8), save_all=True, append_images=[frame(17, 12, 8)], transparency=2),
        "gif-first-in-part": bytes(part),
        "gif-truncated": plain[: len(plain) // 2],
        "gif-no-trailer": plain[:-1],
    }


def jpegs() -> dict[str, bytes]:
    y, x = np.mgrid[0:24, 0:32]
    smooth = np.stack((x * 8, y * 10, 255 - x * 4 - y * 4), axis=-1).astype(np.uint8)
    block = Image.Exif()
    block[0x0112] = 6

    def save(m: Image.Image, **options) -> bytes:
        out = io.BytesIO()
        m.save(out, "JPEG", quality=95, **options)
        return out.getvalue()

    m = Image.fromarray(smooth)
    whole = save(m, subsampling=0)
    return {
        "jpeg-444": whole,
        "jpeg-420": save(m, subsampling=2),
        "jpeg-progressive": save(m, subsampling=0, progressive=True),
        "jpeg-grey": save(m.convert("L")),
        "jpeg-cmyk": save(m.convert("CMYK")),
        "jpeg-exif": save(m, subsampling=0, exif=block),
        "jpeg-truncated": whole[: len(whole) // 2],
        "jpeg-header-only": whole[:100],
    }


def bitmaps() -> dict[str, bytes]:
    """BMP: each depth, bottom-up and top-down, short palettes, and what few programs write."""
    files = {}
    rng = np.random.default_rng(12)
    for bits in (1, 4, 8):
        width, height, colours = 13, 7, 1 << bits
        table = rng.integers(0, 256, (colours, 4), dtype=np.uint8).tobytes()
        rows = [r + bytes(-len(r) % 4) for r in pack(rng.integers(0, colours, (height, width, 1)), bits)]
        files[f"bmp-{bits}"] = bitmap(width, height, bits, table, b"".join(rows))
        files[f"bmp-{bits}-top-down"] = bitmap(width, -height, bits, table, b"".join(rows))
        grey = b"".join(bytes([v, v, v, 0]) for v in (i * 255 // (colours - 1) for i in range(colours)))
        files[f"bmp-{bits}-grey"] = bitmap(width, height, bits, grey, b"".join(rows))
    table = rng.integers(0, 256, (5, 4), dtype=np.uint8).tobytes()
    few = rng.integers(0, 5, (6, 8), dtype=np.uint8).tobytes()
    files["bmp-8-few-colours"] = bitmap(8, 6, 8, table, few, colours=5)
    files["bmp-8-beyond-palette"] = bitmap(8, 6, 8, table, few[:-1] + b"\x05", colours=5)
    for bits in (24, 32):
        for width in (5, 6, 7, 8):
            rows = rng.integers(0, 256, (4, width * bits // 8), dtype=np.uint8)
            body = b"".join(bytes(r) + bytes(-len(r) % 4) for r in rows)
            files[f"bmp-{bits}-wide-{width}"] = bitmap(width, 4, bits, b"", body)
    files["bmp-32-top-down"] = bitmap(8, -4, 32, b"", body)
    files["bmp-32-v4"] = bitmap(8, 4, 32, b"", body, more=struct.pack("<IIIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, 0x73524742) + bytes(48), compression=3)
    files["bmp-24-gap"] = bitmap(5, 4, 24, b"", files["bmp-24-wide-5"][54:], gap=6)
    files["bmp-16"] = bitmap(8, 4, 16, b"", body[: 8 * 4 * 2])
    files["bmp-truncated"] = files["bmp-24-wide-8"][:-3]
    files["bmp-trailing"] = files["bmp-24-wide-8"] + b"more"
    files["bmp-header-only"] = files["bmp-24-wide-8"][:54]
    files["bmp-huge"] = bitmap(30000, 30000, 24, b"", body)
    return files


def bitmap(width: int, height: int, bits: int, table: bytes, body: bytes, colours: int = 0, more: bytes = b"", compression: int = 0, gap: int = 0) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40 + len(more), width, height, 1, bits, compression, len(body), 2835, 2835, colours, 0) + more
    start = 14 + len(head) + len(table) + gap
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + table + bytes(gap) + body


def webps() -> dict[str, bytes]:
    noise = Image.fromarray(random_samples(13, 21, 10, 8, RGB).astype(np.uint8))
    y, x = np.mgrid[0:40, 0:50]
    smooth = Image.fromarray(np.stack((x * 5, y * 6, (x + y) * 2), axis=-1).astype(np.uint8))
    clear = Image.fromarray(random_samples(14, 9, 8, 8, RGB_ALPHA).astype(np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6

    def save(m: Image.Image, **options) -> bytes:
        out = io.BytesIO()
        m.save(out, "WEBP", **options)
        return out.getvalue()

    plain = save(smooth, lossless=True)
    return {
        "webp-lossless": plain,
        "webp-lossless-noise": save(noise, lossless=True),
        "webp-lossless-grey": save(noise.convert("L"), lossless=True),
        "webp-lossless-palette": save(smooth.quantize(9), lossless=True),
        "webp-lossless-one-colour": save(Image.new("RGB", (60, 40), (10, 20, 30)), lossless=True),
        "webp-lossless-fast": save(smooth, lossless=True, quality=0, method=0),
        "webp-lossless-alpha": save(clear, lossless=True),
        "webp-lossless-alpha-exact": save(clear, lossless=True, exact=True),
        "webp-lossless-exif": save(noise, lossless=True, exif=turned.tobytes()),
        "webp-lossless-xmp": save(noise, lossless=True, xmp=b'<x tiff:Orientation="6"/>'),
        "webp-lossless-icc": save(noise, lossless=True, icc_profile=b"profile"),
        "webp-lossless-animated": save(noise, lossless=True, save_all=True, append_images=[Image.eval(noise, lambda v: 255 - v)]),
        "webp-lossy": save(smooth, quality=90),
        "webp-lossy-alpha": save(clear, quality=90),
        "webp-truncated": plain[: len(plain) // 2],
        "webp-header-only": plain[:25],
    }


def others() -> dict[str, bytes]:
    m = Image.fromarray(random_samples(11, 6, 4, 8, RGB).astype(np.uint8))
    files = {}
    for kind in ("BMP", "TIFF", "WEBP", "PPM"):
        out = io.BytesIO()
        m.save(out, kind, **({"lossless": True} if kind == "WEBP" else {}))
        files[kind.lower()] = out.getvalue()
    return files


def read(data: bytes) -> dict:
    """What load_image makes of a file: the size and the hash of its RGB, or the error."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "image"
        path.write_bytes(data)
        try:
            rgb = np.array(load_image(str(path)))
        except Exception as error:
            return {"error": type(error).__name__}
    return {"height": rgb.shape[0], "width": rgb.shape[1], "sha256": hashlib.sha256(rgb.tobytes()).hexdigest(), "rgb": rgb}


def make() -> dict:
    files = every_kind() | transparency() | palettes() | chunks() | orientations() | damage() | animations() | gifs() | jpegs() | others() | bitmaps() | webps()
    cases = []
    for name, data in files.items():
        got = read(data)
        rgb = got.pop("rgb", None)
        case = {"name": name, "file": base64.b64encode(data).decode()} | got
        if name.startswith("jpeg") and rgb is not None:  # compared with a tolerance, so the pixels themselves are needed
            case["rgb"] = base64.b64encode(zlib.compress(rgb.tobytes(), 9)).decode()
        cases.append(case)
    return {"made_by": f"transformers {transformers.__version__}, Pillow {PIL.__version__}", "cases": cases}


def verify(path: Path) -> None:
    different = 0
    cases = json.loads(path.read_text())["cases"]
    for case in cases:
        got = read(base64.b64decode(case["file"]))
        keys = ("height", "width", "sha256") if "sha256" in case else ("error",)
        if [got.get(k) for k in keys] != [case.get(k) for k in keys] and not ("error" in got and "error" in case):
            different += 1
            print(f"{case['name']}: {[got.get(k) for k in keys]}, want {[case.get(k) for k in keys]}; {got.get('error', '')}")
    print(f"transformers {transformers.__version__}, Pillow {PIL.__version__}: {len(cases)} files, {different} different")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--verify", type=Path)
    args = parser.parse_args()
    if args.verify:
        verify(args.verify)
    if args.out:
        text = json.dumps(make(), indent=0, separators=(",", ":"))
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
