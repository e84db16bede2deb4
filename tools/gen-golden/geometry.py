"""Tiles and feature rows of an image, from its size: LLaVA-NeXT's "anyres" rules, in Python's float64.

Sizes are (height, width) in px throughout.
"""

from __future__ import annotations

import math

from config import Config

Size = tuple[int, int]


def best_resolution(size: Size, pinpoints: tuple[Size, ...]) -> Size:
    """The canvas that keeps most pixels of the image, then wastes fewest of its own; the first one of a tie."""
    height, width = size
    best, most, least_waste = pinpoints[0], 0, math.inf
    for canvas in pinpoints:
        scale = min(canvas[1] / width, canvas[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas[0] * canvas[1] - kept
        if kept > most or (kept == most and waste < least_waste):
            best, most, least_waste = canvas, kept, waste
    return best


def grid(config: Config, size: Size) -> Size:
    """Rows and columns of tiles."""
    height, width = best_resolution(size, config.pinpoints)
    return height // config.vision.image_size, width // config.vision.image_size


def tile_count(config: Config, size: Size) -> int:
    if not config.packs_tiles:
        return 1
    rows, columns = grid(config, size)
    return 1 + rows * columns  # the whole image, shrunk to one tile, comes first


def unpadded(cells: Size, size: Size) -> tuple[slice, slice]:
    """The rows and columns of the feature map that hold image, not padding."""
    (high, wide), (height, width) = cells, size
    if width / height > wide / high:
        kept = int(round(height * (wide / width), 7))
        pad = (high - kept) // 2
        return slice(pad, high - pad), slice(0, wide)
    kept = int(round(width * (high / height), 7))
    pad = (wide - kept) // 2
    return slice(0, high), slice(pad, wide - pad)


def feature_rows(config: Config, size: Size) -> int:
    """Image tokens that the prompt needs for one image."""
    side = config.vision.patches_per_side
    if not config.packs_tiles:
        return side * side
    rows, columns = grid(config, size)
    down, across = unpadded((rows * side, columns * side), size)
    high, wide = down.stop - down.start, across.stop - across.start
    return side * side + high * (wide + 1)  # one newline at the end of every row
