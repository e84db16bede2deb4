"""The inputs of a case, as files: what the witnesses read, and what a user supplies for a checkpoint of his own.

    CASE/input_ids.npy     int64 [T], the image token repeated once a feature row
    CASE/pixel_values.npy  float32 [N, 3, px, px], the tiles of all images in order; absent if there is no image
    CASE/image_sizes.json  [[height, width], ...], one an image; may be absent if there is no image
    CASE/position_ids.npy  int64 [T]; 0 ... T-1 if absent
    CASE/case.json         {"why", "catches", "images"}, all optional
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import geometry
from config import Config
from nodes import Node, nodes


@dataclass(frozen=True)
class Case:
    name: str
    pixel_values: np.ndarray | None  # float32 [N, 3, px, px]
    image_sizes: list[tuple[int, int]]  # (height, width)
    input_ids: np.ndarray  # int64 [T]
    position_ids: np.ndarray  # int64 [T]
    about: dict

    def tile_counts(self, config: Config) -> list[int]:
        return [geometry.tile_count(config, size) for size in self.image_sizes]

    def nodes(self, config: Config) -> list[Node]:
        rows = sum(geometry.feature_rows(config, size) for size in self.image_sizes)
        return nodes(config, sum(self.tile_counts(config)), rows, len(self.input_ids))


def folders(root: Path) -> list[Path]:
    found = sorted(p.parent for p in Path(root).glob("*/input_ids.npy"))
    if not found:
        raise FileNotFoundError(f"{root}: no folder with an input_ids.npy")
    return found


def read(folder: Path, config: Config) -> Case:
    def optional(name, load, default):
        return load(folder / name) if (folder / name).is_file() else default

    ids = np.load(folder / "input_ids.npy").astype(np.int64)
    sizes = optional("image_sizes.json", lambda p: json.loads(p.read_text()), [])
    case = Case(
        name=folder.name,
        pixel_values=optional("pixel_values.npy", np.load, None),
        image_sizes=[(int(h), int(w)) for h, w in sizes],
        input_ids=ids,
        position_ids=optional("position_ids.npy", np.load, np.arange(len(ids))).astype(np.int64),
        about=optional("case.json", lambda p: json.loads(p.read_text()), {}),
    )
    check(folder, case, config)
    return case


def check(folder: Path, case: Case, config: Config) -> None:
    if case.input_ids.ndim != 1 or case.position_ids.shape != case.input_ids.shape:
        raise ValueError(f"{folder}: input_ids {case.input_ids.shape} and position_ids {case.position_ids.shape}, want both [T]")
    if case.input_ids.min() < 0 or case.input_ids.max() >= config.text.vocab_size:
        raise ValueError(f"{folder}: input_ids from {case.input_ids.min()} to {case.input_ids.max()}, vocabulary {config.text.vocab_size}")
    px, tiles = config.vision.image_size, sum(case.tile_counts(config))
    have = None if case.pixel_values is None else case.pixel_values.shape
    want = (tiles, config.vision.num_channels, px, px) if tiles else None
    if have != want:
        raise ValueError(f"{folder}: pixel_values {have}, want {want} for image sizes {case.image_sizes}")
    rows = sum(geometry.feature_rows(config, size) for size in case.image_sizes)
    tokens = int((case.input_ids == config.image_token).sum())
    if tokens != rows:
        raise ValueError(f"{folder}: {tokens} image tokens in input_ids, {rows} feature rows in the images")


def write(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if case.pixel_values is not None:
        np.save(folder / "pixel_values.npy", case.pixel_values)
        (folder / "image_sizes.json").write_text(json.dumps(case.image_sizes))
    np.save(folder / "input_ids.npy", case.input_ids)
    np.save(folder / "position_ids.npy", case.position_ids)
    (folder / "case.json").write_text(json.dumps(case.about))
