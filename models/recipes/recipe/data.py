"""Images from tars or a folder, their division into training and held-out photos, and the training crops."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = 64_000_000


class Tar:
    """Random access by name to the files of an uncompressed tar."""

    def __init__(self, path: Path):
        if not path.is_file():
            raise SystemExit(f"{path} is missing: point --data at the folder with the tars")
        self.path = path
        with tarfile.open(path, "r:") as tar:
            self.members = {m.name.removeprefix("./"): (m.offset_data, m.size) for m in tar if m.isfile()}

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        offset, size = self.members[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def image(self, name: str) -> Image.Image:
        return Image.open(io.BytesIO(self.read(name))).convert("RGB")

    def names(self, suffix: str) -> list[str]:
        """Sorted names of the files that end in `suffix`."""
        return sorted(name for name in self.members if name.endswith(suffix))


@dataclass(frozen=True)
class Photo:
    """An image of a tar or a folder."""

    tar: Tar | Folder
    name: str

    def image(self) -> Image.Image:
        return self.tar.image(self.name)

    @property
    def kind(self) -> str:
        """The collection that the photo belongs to: the part of its name before the first hyphen."""
        return self.name.split("-")[0]


class Folder:
    """The images in a folder and its subfolders, by their relative path."""

    def __init__(self, path: Path):
        if not path.is_dir():
            raise SystemExit(f"{path} is not a folder of images")
        self.path = path

    def image(self, name: str) -> Image.Image:
        return Image.open(self.path / name).convert("RGB")

    def names(self) -> list[str]:
        """Sorted relative paths of all images."""
        found = (file for file in self.path.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
        return sorted(file.relative_to(self.path).as_posix() for file in found)


def photos(config: dict, data: Path) -> tuple[list[Photo], list[Photo]]:
    """Training and held-out photos; the division depends on the file names only."""
    if "photos" in config["data"]:
        everything = [Photo(tar, name) for tar in (Tar(data / part) for part in config["data"]["photos"]) for name in tar.names(".jpg")]
    else:
        folder = Folder(data)
        everything = [Photo(folder, name) for name in folder.names()]
    everything.sort(key=lambda photo: hashlib.sha256(photo.name.encode()).digest())
    held_out = config["data"]["held_out"]
    return everything[held_out:], everything[:held_out]


def fit_photo(image: Image.Image, short_side: int, side: int) -> Image.Image:
    """The image resized to `short_side` (bicubic, antialiased) and cropped to the central square of `side` pixels."""
    scale = short_side / min(image.size)
    width, height = (max(short_side, round(edge * scale)) for edge in image.size)
    image = image.resize((width, height), Image.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def photo_pixels(config: dict, image: Image.Image) -> np.ndarray:
    """Pixels u8 [side,side,3] of an image in the geometry `photo` of a config."""
    return np.asarray(fit_photo(image, config["photo"]["short_side"], config["photo"]["side"]), np.uint8)


def random_crop(image: Image.Image, side: int, scale: tuple[float, float], rng: random.Random) -> Image.Image:
    """A window of random area, aspect ratio and place, resized to a square, mirrored with probability 1/2."""
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = rng.uniform(3 / 4, 4 / 3)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    image = image.resize((side, side), Image.BICUBIC, box=(left, top, left + w, top + h))
    return mirror_randomly(image, rng)


def shifted_crop(image: Image.Image, short_side: int, zoom: tuple[float, float], side: int, rng: random.Random) -> Image.Image:
    """A square at a random place of the image resized to about `short_side`, mirrored with probability 1/2."""
    scale = rng.uniform(*zoom) * short_side / min(image.size)
    width, height = (max(side, round(edge * scale)) for edge in image.size)
    image = image.resize((width, height), Image.BICUBIC)
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    return mirror_randomly(image.crop((left, top, left + side, top + side)), rng)


def frame_crop(image: Image.Image, zoom: tuple[float, float], side: int, rng: random.Random) -> Image.Image:
    """A square at a random place of a road frame at about its own scale, mirrored with probability 1/2."""
    scale = rng.uniform(*zoom)
    width, height = (max(side, round(edge * scale)) for edge in image.size)
    image = image.resize((width, height), Image.BICUBIC)
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    return mirror_randomly(image.crop((left, top, left + side, top + side)), rng)


def mirror_randomly(image: Image.Image, rng: random.Random) -> Image.Image:
    """The image, mirrored with probability 1/2."""
    return image.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def training_crops(config: dict, data: Path) -> list:
    """Functions that each cut one training crop u8 [side,side,3], in a fixed shuffled order."""
    return [cut for _, cut in crop_jobs(config, data)]


def crop_jobs(config: dict, data: Path) -> list[tuple[str, Callable[[], np.ndarray]]]:
    """`photo` or `frame`, and a function that cuts one training crop u8 [side,side,3] of it, in a fixed shuffled order."""
    side, short_side = config["data"]["crop_side"], config["data"]["crop_short_side"]
    seed, scale, zoom = config["seed"], tuple(config["data"]["crop_area"]), tuple(config["data"]["crop_zoom"])
    camvid_zoom = tuple(config["data"].get("camvid_zoom", zoom))

    def cut_photo(photo: Photo, index: int):
        rng = random.Random(f"{seed}/{photo.name}/{index}")
        if index % 2 == 0:
            return shifted_crop(photo.image(), short_side, zoom, side, rng)
        return random_crop(photo.image(), side, scale, rng)

    def cut_frame(tar: Tar, name: str, index: int):
        return frame_crop(tar.image(name), camvid_zoom, side, random.Random(f"{seed}/{name}/{index}"))

    jobs = []
    for photo in photos(config, data)[0]:
        for index in range(crops_of(config, photo)):
            jobs.append(("photo", cut_photo, (photo, index)))
    if "camvid_train" in config["data"]:
        camvid = Tar(data / config["data"]["camvid_train"])
        for name in camvid.names(".jpg"):
            for index in range(config["data"]["camvid_crops"]):
                jobs.append(("frame", cut_frame, (camvid, name, index)))
    random.Random(seed).shuffle(jobs)
    return [(kind, lambda cut=cut, args=args: np.asarray(cut(*args), np.uint8)) for kind, cut, args in jobs]


def crops_of(config: dict, photo: Photo) -> int:
    """Number of crops of a photo: by its collection, or one number for all."""
    crops = config["data"]["crops"]
    return crops if isinstance(crops, int) else crops[photo.kind]


def camvid(tar: Tar) -> list[str]:
    """Names without extension of the frames that have a class map."""
    return [name.removesuffix(".png") for name in tar.names(".png")]


def frame(tar: Tar, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels u8 [H,W,3] and classes u8 [H,W] (11: unlabelled) of one road frame."""
    pixels = np.asarray(tar.image(name + ".jpg"), np.uint8)
    classes = np.asarray(Image.open(io.BytesIO(tar.read(name + ".png"))), np.uint8)
    return pixels, classes
