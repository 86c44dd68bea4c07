"""Small data sets, made from a seed, with which every method's example runs in seconds."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

_SUBJECTS = {
    "animals": ["the dog", "a cat", "the old horse", "a small bird", "the fox"],
    "machines": ["the engine", "a motor", "the old pump", "a small drill", "the crane"],
}
_VERBS = {
    "animals": ["eats", "sleeps near", "runs to", "hides from", "plays with"],
    "machines": ["drives", "lifts", "turns", "presses", "cuts"],
}
_OBJECTS = {
    "animals": ["the grass", "a tree", "the river", "some bread", "the nest"],
    "machines": ["the wheel", "a beam", "the belt", "some steel", "the shaft"],
}


def write_table(path: Path, *, rows: int = 240, columns: int = 6) -> None:
    """CSV with numeric columns and a `label` of three classes, each a Gaussian around its own centre."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, rows)
    features = random.normal(size=(3, columns))[labels] * 2 + random.normal(size=(rows, columns))
    lines = [",".join([*(f"x{index}" for index in range(columns)), "label"])]
    for values, label in zip(features, labels, strict=True):
        lines.append(",".join([*(f"{value:.5f}" for value in values), "abc"[label]]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_images(path: Path, *, count: int = 120, size: int = 16, noise: int = 60) -> None:
    """Zip of grey PNG images in a folder per class: a bright bar that lies or stands, on noise."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            name = ("lying", "standing")[index % 2]
            pixels = random.integers(0, noise, (size, size), dtype=np.uint8)
            place = int(random.integers(1, size - 3))
            bar = (slice(place, place + 2), slice(2, -2))
            pixels[bar if name == "lying" else bar[::-1]] = random.integers(180, 255)
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            archive.writestr(f"{name}/{index:04d}.png", content.getvalue())


def write_segmented(path: Path, *, count: int = 40, size: int = 32) -> None:
    """Zip of `images` and `masks` in grey: a bright square (class 1) and a dark one (class 2) on noise (class 0)."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            pixels = random.integers(100, 150, (size, size), dtype=np.uint8)
            mask = np.zeros((size, size), dtype=np.uint8)
            for number, shade in ((1, 230), (2, 20)):
                side = int(random.integers(size // 4, size // 2))
                top, left = random.integers(0, size - side, 2)
                pixels[top : top + side, left : left + side] = shade
                mask[top : top + side, left : left + side] = number
            for folder, content in (("images", pixels), ("masks", mask)):
                file = io.BytesIO()
                Image.fromarray(content).save(file, "PNG")
                archive.writestr(f"{folder}/{index:04d}.png", file.getvalue())


def write_boxed(path: Path, *, count: int = 40, size: int = 32) -> None:
    """Zip of grey images and `metadata.jsonl`: in each a bright or a dark square on noise, with its box."""
    random = np.random.default_rng(0)
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            pixels = random.integers(100, 150, (size, size), dtype=np.uint8)
            name, shade = (("bright", 230), ("dark", 20))[index % 2]
            side = int(random.integers(size // 4, size // 2))
            top, left = (int(place) for place in random.integers(0, size - side, 2))
            pixels[top : top + side, left : left + side] = shade
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(f"{index:04d}.png", file.getvalue())
            objects = {"bbox": [[left, top, side, side]], "category": [name]}
            lines.append(json.dumps({"file_name": f"{index:04d}.png", "objects": objects}))
        archive.writestr("metadata.jsonl", "\n".join(lines))


def write_recordings(path: Path, *, count: int = 60, rate: int = 8000, seconds: float = 0.4) -> None:
    """Zip of WAV files in a folder per class: a tone that rises or falls, in noise."""
    import soundfile

    random = np.random.default_rng(0)
    times = np.arange(int(rate * seconds)) / rate
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            name = ("falling", "rising")[index % 2]
            low = random.uniform(300, 600)
            pitch = np.linspace(low, 3 * low, len(times))[:: 1 if name == "rising" else -1]
            wave = 0.5 * np.sin(2 * np.pi * np.cumsum(pitch) / rate) + random.normal(0, 0.05, len(times))
            content = io.BytesIO()
            soundfile.write(content, wave[: random.integers(len(times) // 2, len(times))], rate, format="WAV")
            archive.writestr(f"{name}/{index:04d}.wav", content.getvalue())


def write_speech(path: Path, *, count: int = 40, rate: int = 8000) -> None:
    """Zip of WAV files and `metadata.csv`: words of three letters, each letter a tone of its own."""
    import soundfile

    random = np.random.default_rng(0)
    times = np.arange(int(0.15 * rate)) / rate
    rows = ["file_name,transcription"]
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            word = "".join(random.choice(list("abc"), 3))
            tones = [np.sin(2 * np.pi * 400 * 2 ** "abc".index(letter) * times) for letter in word]
            gap = np.zeros(int(0.05 * rate))
            wave = 0.5 * np.concatenate([part for tone in tones for part in (tone, gap)])
            content = io.BytesIO()
            soundfile.write(content, wave + random.normal(0, 0.02, len(wave)), rate, format="WAV")
            archive.writestr(f"{index:04d}.wav", content.getvalue())
            rows.append(f"{index:04d}.wav,{word}")
        archive.writestr("metadata.csv", "\n".join(rows) + "\n")


def write_other_images(path: Path) -> None:
    """The same bars on stronger noise: another domain."""
    write_images(path, count=80, noise=150)


def sentence(random: np.random.Generator, topic: str) -> str:
    """A sentence about animals or machines."""
    words = (random.choice(words[topic]) for words in (_SUBJECTS, _VERBS, _OBJECTS))
    return " ".join(words) + "."


def write_text(path: Path, *, documents: int = 400) -> None:
    """Plain text, a document of three sentences a line, each about one topic."""
    random = np.random.default_rng(0)
    topics = [("animals", "machines")[index % 2] for index in range(documents)]
    lines = [" ".join(sentence(random, topic) for _ in range(3)) for topic in topics]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_labelled_text(path: Path, *, documents: int = 120) -> None:
    """JSON Lines with `text` and `label`: sentences about animals or machines."""
    random = np.random.default_rng(0)
    topics = [("animals", "machines")[index % 2] for index in range(documents)]
    lines = [json.dumps({"text": sentence(random, topic), "label": topic}) for topic in topics]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_conversations(path: Path, *, count: int = 60) -> None:
    """JSON Lines with `messages`: asked for what a thing is, an assistant names its topic; all differ (up to 250)."""
    random = np.random.default_rng(0)
    lines: dict[str, None] = {}
    while len(lines) < count:
        topic = ("animals", "machines")[len(lines) % 2]
        messages = [
            {"role": "user", "content": sentence(random, topic)},
            {"role": "assistant", "content": f"that is about {topic}."},
        ]
        lines[json.dumps({"messages": messages})] = None
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_preferences(path: Path, *, count: int = 60) -> None:
    """JSON Lines with `prompt`, `chosen` and `rejected`: answers about animals are better than those about machines."""
    random = np.random.default_rng(0)
    lines: dict[str, None] = {}
    while len(lines) < count:
        better, worse = sentence(random, "animals"), sentence(random, "machines")
        lines[json.dumps({"prompt": "tell me something.", "chosen": better, "rejected": worse})] = None
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tagged_tokens(path: Path, *, count: int = 60) -> None:
    """JSON Lines with `tokens` and `tags`: subjects and objects are entities of their topic, in BIO."""
    random = np.random.default_rng(0)
    lines = []
    for index in range(count):
        topic = ("animals", "machines")[index % 2]
        tokens: list[str] = []
        tags: list[str] = []
        for words in (_SUBJECTS, _VERBS, _OBJECTS):
            part = str(random.choice(words[topic])).split()
            kind = topic[:-1].upper()
            tags += ["O"] * len(part) if words is _VERBS else [f"B-{kind}", *[f"I-{kind}"] * (len(part) - 1)]
            tokens += part
        lines.append(json.dumps({"tokens": tokens, "tags": tags}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_text_pairs(path: Path, *, count: int = 60) -> None:
    """JSON Lines with `source` and `target`: the subject of a sentence is to be written."""
    random = np.random.default_rng(0)
    lines = []
    for index in range(count):
        topic = ("animals", "machines")[index % 2]
        subject = str(random.choice(_SUBJECTS[topic]))
        rest = f"{random.choice(_VERBS[topic])} {random.choice(_OBJECTS[topic])}."
        lines.append(json.dumps({"source": f"{subject} {rest}", "target": subject}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
