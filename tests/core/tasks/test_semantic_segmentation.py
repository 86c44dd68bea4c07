"""Pixels are named: masks are read by value or colour, learned by SegFormer, and judged by intersection over union."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, run_example, trained, weights_of
from PIL import Image
from safetensors.torch import load_file

from core.catalog import method_named, read_spec
from core.data.examples import write_segmented
from core.data.profile import Kind, inspect
from core.data.segmented import read_segmented
from core.errors import InvalidData, InvalidSpec
from core.registry import Example
from core.tasks.semantic_segmentation import confused, intersection_over_union, overlaid, pixel_loss
from tests.fresh import FreshProcesses

SPEC = {"method": "fine_tuning", "base": "model-base", "task": "semantic_segmentation", "batch_size": 8}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("squares") / "data.zip"
    write_segmented(path)
    return path


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that learned to classify images, as people upload it, here random."""
    folder = tmp_path_factory.mktemp("segformer")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[16, 32], depths=[1, 1], num_encoder_blocks=2, num_attention_heads=[1, 2], sr_ratios=[2, 1],
        strides=[2, 2], patch_sizes=[3, 3], mlp_ratios=[2, 2], decoder_hidden_size=32, drop_path_rate=0.0,
    )  # fmt: skip
    transformers.SegformerForImageClassification(config).save_pretrained(folder)
    scaling = {
        "image_processor_type": "SegformerImageProcessor",
        "size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))
    return folder


def png(pixels: Any, mode: str | None = None) -> bytes:
    content = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(content, "PNG")
    return content.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_learns_masks_and_opens_in_transformers(
    tmp_path: Path, squares: Path, segformer: Path, fresh: FreshProcesses
) -> None:
    profile = inspect(squares)
    assert (profile.kind, profile.examples, list(profile.classes or ())) == (Kind.SEGMENTED, 40, ["0", "1", "2"])
    spec = {**SPEC, "epochs": 12, "learning_rate": 1e-2, "validation_fraction": 0.2, "horizontal_flip": True}
    metrics, folder, recorder = trained(tmp_path, spec, dataset=squares, base=segformer)
    seen = [values["valid_mean_iou"] for _, values in recorder.metrics_seen if "valid_mean_iou" in values]
    assert metrics["valid_mean_iou"] == pytest.approx(seen[-1])
    assert seen[-1] > max(0.8, seen[0])
    assert recorder.samples[-1].path.read_bytes()[:4] == b"\x89PNG"
    assert set(json.loads((folder / "iou.json").read_text())) == {"0", "1", "2"}
    code = (
        "import sys, torch, transformers as t; n = t.AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1]);"
        "p = t.AutoImageProcessor.from_pretrained(sys.argv[1]);"
        "print(n(torch.zeros(1, 3, 32, 32)).logits.shape[1], p.size['height'])"
    )
    assert fresh.run(code, folder).split() == ["3", "32"]


def test_a_frozen_encoder_stays_and_the_head_learns(tmp_path: Path, squares: Path, segformer: Path) -> None:
    spec = {**SPEC, "steps": 3, "strategy": "frozen_encoder"}
    _, folder, _ = trained(tmp_path, spec, dataset=squares, base=segformer)
    before, after = load_file(segformer / "model.safetensors"), load_file(folder / "model.safetensors")
    kept = [name for name in before if name.startswith("segformer.")]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)


def test_resumed_it_ends_where_the_uninterrupted_run_ends(tmp_path: Path, squares: Path, segformer: Path) -> None:
    example = Example({**SPEC, "steps": 4, "jitter": 2, "validation_fraction": 0.2}, lambda path: None)
    inputs = {"dataset": squares, "base": segformer}
    run_example(example, tmp_path / "whole", inputs=inputs)
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    run_example(example, tmp_path / "2", inputs=inputs, resume=recorder.checkpoints[-1].path)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_a_model_for_other_classes_forgets_their_answers(tmp_path: Path, squares: Path, segformer: Path) -> None:
    _, first, _ = trained(tmp_path / "1", {**SPEC, "steps": 1}, dataset=squares, base=segformer)
    with zipfile.ZipFile(squares) as old:
        members = {name: old.read(name) for name in old.namelist()}
    renamed = archive(tmp_path / "renamed", {**members, "classes.txt": b"ground\nlight\ndark\n"})
    spec = {**SPEC, "steps": 1, "learning_rate": 1e-9}
    _, same, _ = trained(tmp_path / "2", spec, dataset=squares, base=first)
    _, other, _ = trained(tmp_path / "3", spec, dataset=renamed, base=first)
    name, fused = "decode_head.classifier.weight", "decode_head.linear_fuse.weight"
    weights = [load_file(folder / "model.safetensors") for folder in (first, same, other)]
    assert torch.allclose(weights[0][name], weights[1][name], atol=1e-6)
    assert not torch.allclose(weights[0][name], weights[2][name], atol=1e-3)
    assert torch.allclose(weights[0][fused], weights[2][fused], atol=1e-6)


def test_masks_are_read_by_colour_and_resized_without_mixing(tmp_path: Path) -> None:
    mask = np.zeros((4, 6, 3), dtype=np.uint8)
    mask[:, 3:] = (255, 0, 0)
    names = json.dumps({"#000000": "ground", "#ff0000": "car"}).encode()
    members = {"d/images/a.png": png(np.zeros((4, 6))), "d/masks/a.png": png(mask), "classes.json": names}
    data = archive(tmp_path / "data", members)
    assert inspect(data).classes == {"car": 1, "ground": 1}
    found = read_segmented(data, size=(2, 2), channels=3)
    assert found.class_names == ("ground", "car")
    assert found.masks.tolist() == [[[0, 1], [0, 1]]]
    assert found.images.shape == (1, 3, 2, 2)


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [([0, 255], ("0", "255"), [0, 1]), ([3, 7, 255], ("3", "7"), [0, 1, 255]), ([0, 1], ("0", "1"), [0, 1])],
)
def test_255_is_no_class_beside_others(
    tmp_path: Path, values: list[int], names: tuple[str, ...], numbers: list[int]
) -> None:
    members = {"images/a.jpg": png([[0] * len(values)]), "masks/a.png": png([values])}
    found = read_segmented(archive(tmp_path / "data", members), size=(1, len(values)), channels=1)
    assert found.class_names == names
    assert found.masks[0, 0].tolist() == numbers


GREY = png(np.zeros((4, 6)))
WRONG = {
    "another size": ({"masks/a.png": png(np.zeros((8, 6)))}, "masks/a.png: is 6x8, images/a.png 6x4"),
    "no mask": ({"images/b.png": GREY}, "images/b.png: has no mask"),
    "no image": ({"masks/b.png": GREY}, "masks/b.png: has no image"),
    "elsewhere": ({"c.png": GREY}, "c.png: lies neither below images/"),
    "broken": ({"masks/a.png": b"\x89PNG\r\n"}, "masks/a.png: is not an image"),
    "unnamed": ({"classes.txt": b"one\n", "masks/a.png": png(np.ones((4, 6)))}, "classes.txt: does not name 1"),
    "names twice": ({"classes.txt": b"one\none\n"}, "classes.txt: must name each class once"),
    "blurred": ({"masks/a.png": png(np.random.default_rng(0).integers(0, 255, (20, 20, 3)))}, "masks/a.png: has 400"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_by_member(tmp_path: Path, name: str) -> None:
    members, message = WRONG[name]
    data = archive(tmp_path / "data", {"images/a.png": GREY, "masks/a.png": GREY, **members})
    with pytest.raises(InvalidData) as raised:
        inspect(data)
    assert any(str(problem).startswith(message) for problem in raised.value.problems), raised.value.problems


def test_overlap_is_counted_pixel_by_pixel() -> None:
    truth, named = torch.randint(0, 4, (3, 5, 6)), torch.randint(0, 4, (3, 5, 6))
    truth[0, 0] = 255
    found = intersection_over_union(confused(truth, named, 5))
    for number in range(4):
        pairs = [(a == number, b == number) for a, b in zip(truth.flatten(), named.flatten(), strict=True) if a != 255]
        both, either = sum(bool(a and b) for a, b in pairs), sum(bool(a or b) for a, b in pairs)
        assert float(found[number]) == pytest.approx(both / either)
    assert found[4].isnan()


def test_pixels_without_a_class_have_no_loss() -> None:
    logits, masks = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 255], [2, 1]]], dtype=torch.uint8)
    expected = -sum(logits[0].log_softmax(0)[number, y, x] for number, y, x in ((0, 0, 0), (2, 1, 0), (1, 1, 1)))
    torch.testing.assert_close(pixel_loss(logits, masks), expected)


def test_class_0_shows_the_image_itself() -> None:
    pixels = torch.rand(1, 3, 1, 2)
    found = overlaid(pixels, torch.tensor([[[0, 1]]]))
    assert torch.equal(found[..., 0], pixels[..., 0])
    torch.testing.assert_close(found[0, :, 0, 1], 0.4 * pixels[0, :, 0, 1] + 0.6 * torch.tensor([128 / 255, 0, 0]))


def test_refuses_what_does_not_fit(tmp_path: Path, squares: Path, segformer: Path) -> None:
    base = tmp_path / "base"
    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=32)
    ).save_pretrained(base)
    (base / "preprocessor_config.json").write_text((segformer / "preprocessor_config.json").read_text())
    with pytest.raises(InvalidData, match="cannot be opened as AutoModelForSemanticSegmentation: name a base"):
        trained(tmp_path / "1", {**SPEC, "steps": 1}, dataset=squares, base=base)
    check = method_named("fine_tuning").check
    assert check is not None
    spec = read_spec({**SPEC, "task": "image_classification", "dataset": "file-1"})
    with pytest.raises(InvalidSpec, match="did you mean semantic_segmentation"):
        check(spec, inspect(squares))
    one = archive(tmp_path / "one", {"images/a.png": GREY, "masks/a.png": GREY})
    with pytest.raises(InvalidData, match="all masks are of one class"):
        check(read_spec({**SPEC, "dataset": "file-1"}), inspect(one))
    with pytest.raises(InvalidSpec, match="label_smoothing would have no effect"):
        read_spec({**SPEC, "dataset": "file-1", "label_smoothing": 0.1})
