"""Things are found in images: boxes are read from both notations, learned as sets, and judged by average precision."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from contract import Recorder, RequestAfter, run_example, trained, weights_of
from PIL import Image
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from core.data.boxed import read_boxed
from core.data.examples import write_boxed
from core.data.profile import Kind, inspect
from core.errors import InvalidData
from core.registry import Example
from core.tasks.object_detection import Batch, Weights, drawn, set_loss
from core.training.boxes import Detections, average_precision, corners, match, overlap

SPEC = {"method": "fine_tuning", "base": "model-base", "task": "object_detection", "batch_size": 8}
SIDE = 16


def archive(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def png(pixels: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def quarters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In each image a quarter is bright or dark; COCO's JSON tells which."""
    random = np.random.default_rng(0)
    members: dict[str, bytes | str] = {}
    images, annotations = [], []
    for index in range(64):
        pixels = random.integers(100, 150, (SIDE, SIDE), dtype=np.uint8)
        top, left = 8 * (index // 2 % 2), 8 * (index // 4 % 2)
        pixels[top : top + 8, left : left + 8] = (230, 20)[index % 2]
        members[f"images/{index}.png"] = png(pixels)
        images.append({"id": index, "file_name": f"{index}.png"})
        annotations.append({"image_id": index, "bbox": [left, top, 8, 8], "category_id": 5 + index % 2})
    categories = [{"id": 5, "name": "bright"}, {"id": 6, "name": "dark"}]
    notes = {"images": images, "annotations": annotations, "categories": categories}
    return archive(
        tmp_path_factory.mktemp("quarters") / "data.zip", {**members, "annotations/all.json": json.dumps(notes)}
    )


def write_scaling(folder: Path, name: str) -> None:
    scaling = {
        "image_processor_type": name,
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5],
        "image_std": [0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(scaling))


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of other classes, random, with weights large enough to learn within seconds."""
    folder = tmp_path_factory.mktemp("yolos")
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=[SIDE, SIDE],
        patch_size=4, num_detection_tokens=3, num_channels=1, initializer_range=0.15, num_labels=7,
    )  # fmt: skip
    network = transformers.YolosForObjectDetection(config)
    for name, parameter in network.named_parameters():
        if "token" in name or "position" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    network.save_pretrained(folder)
    write_scaling(folder, "YolosImageProcessor")
    return folder


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detr")
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        num_channels=1, hidden_sizes=[8, 8], depths=[1, 1], embedding_size=8, layer_type="basic",
        out_features=["stage2"],
    )  # fmt: skip
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
        num_channels=1, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, num_queries=4,
    )  # fmt: skip
    transformers.DetrForObjectDetection(config).save_pretrained(folder)
    write_scaling(folder, "DetrImageProcessor")
    return folder


def test_learns_boxes_and_opens_in_transformers(tmp_path: Path, quarters: Path, yolos: Path) -> None:
    profile = inspect(quarters)
    assert (profile.kind, profile.examples, profile.classes) == (Kind.BOXED, 64, {"bright": 32, "dark": 32})
    spec = {**SPEC, "epochs": 12, "learning_rate": 5e-3, "gradient_clip": None, "validation_fraction": 0.2}
    metrics, folder, recorder = trained(tmp_path, spec, dataset=quarters, base=yolos)
    seen = [values["valid_map_50"] for _, values in recorder.metrics_seen if "valid_map_50" in values]
    assert metrics["valid_map_50"] == pytest.approx(seen[-1])
    assert seen[-1] > max(0.8, seen[0])
    assert recorder.samples[-1].name == "detections"
    assert (folder / "detections.png").read_bytes()[:4] == b"\x89PNG"
    network = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    data = read_boxed(quarters, size=(SIDE, SIDE), channels=1)
    with torch.no_grad():
        answer = network(pixel_values=(data.images[:1].float() / 255 - 0.5) / 0.25)
    (found,) = processor.post_process_object_detection(answer, threshold=0.5, target_sizes=[(SIDE, SIDE)])
    assert {network.config.id2label[int(label)] for label in found["labels"]} == {"bright"}
    assert overlap(found["boxes"] / SIDE, corners(data.boxes[0]))[0].max() > 0.5


def test_resumed_it_ends_where_the_uninterrupted_run_ends(tmp_path: Path, quarters: Path, detr: Path) -> None:
    example = Example({**SPEC, "steps": 4, "horizontal_flip": True, "validation_fraction": 0.2}, lambda path: None)
    inputs = {"dataset": quarters, "base": detr}
    run_example(example, tmp_path / "whole", inputs=inputs)
    recorder, control = Recorder(), RequestAfter("interrupt", steps=2)
    assert run_example(example, tmp_path / "1", inputs=inputs, recorder=recorder, control=control) is None
    run_example(example, tmp_path / "2", inputs=inputs, resume=recorder.checkpoints[-1].path)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "2")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_parts_of_a_batch_have_the_gradient_of_the_whole(tmp_path: Path, yolos: Path) -> None:
    write_boxed(tmp_path / "data", count=12)
    weights = []
    for accumulate in (1, 3):
        spec = {**SPEC, "steps": 2, "accumulate": accumulate, "batch_size": 6, "learning_rate": 1e-3}
        _, folder, _ = trained(tmp_path / str(accumulate), spec, dataset=tmp_path / "data", base=yolos)
        weights.append(transformers.AutoModelForObjectDetection.from_pretrained(folder).state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-4, rtol=1e-3)


def boxes_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Three images with three, one and no boxes of four classes."""
    labels = torch.tensor([[0, 3, 1], [2, -1, -1], [-1, -1, -1]])
    return torch.rand(3, 3, 4) * 0.4 + 0.2, labels


def test_the_loss_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    logits, places = torch.randn(3, 6, 5), torch.rand(3, 6, 4) * 0.5 + 0.1
    boxes, labels = boxes_and_labels()
    truth = Batch(torch.zeros(3, 1, 2, 2), boxes, labels, torch.tensor([[3, 4]] * 3))
    config = SimpleNamespace(**Weights()._asdict(), num_labels=4, auxiliary_loss=False)
    targets = [
        {"class_labels": label[label >= 0], "boxes": box[label >= 0]} for box, label in zip(boxes, labels, strict=True)
    ]
    expected = ForObjectDetectionLoss(logits, targets, "cpu", places, config)[0]
    torch.testing.assert_close(set_loss(logits, places, truth, Weights()), expected)
    parts = [
        set_loss(logits[rows], places[rows], Batch(*(each[rows] for each in truth)), Weights())
        for rows in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(parts), expected)


def test_matching_costs_least() -> None:
    from itertools import permutations

    costs = torch.rand(5, 3)
    predictions, truths = match(costs)
    least = min(float(sum(costs[row, column] for column, row in enumerate(rows))) for rows in permutations(range(5), 3))
    assert float(costs[predictions, truths].sum()) == pytest.approx(least)
    assert sorted(truths.tolist()) == [0, 1, 2]


def test_overlap_of_boxes_worked_out_by_hand() -> None:
    first = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    others = torch.tensor([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0], [3.0, 0.0, 4.0, 2.0]])
    plain, generalised = overlap(first, others)
    assert plain[0].tolist() == pytest.approx([1 / 7, 1, 0])
    assert generalised[0].tolist() == pytest.approx([1 / 7 - 2 / 9, 1, -2 / 8])


BOX, FAR = [0.0, 0.0, 0.4, 0.4], [0.6, 0.6, 1.0, 1.0]


@pytest.mark.parametrize(
    ("found", "truth", "area"),
    [
        ([(BOX, 0.9)], [BOX], 1.0),
        ([(BOX, 0.9), (BOX, 0.8)], [BOX], 1.0),  # the second comes too late to hurt
        ([(FAR, 0.9), (BOX, 0.8)], [BOX], 0.5),
        ([(BOX, 0.9)], [BOX, FAR], 0.5),
        ([(BOX, 0.9), (BOX, 0.8), (FAR, 0.7)], [BOX, FAR], 0.5 + 0.5 * 2 / 3),  # a double, then a right one
        ([([0.0, 0.0, 0.4, 0.19], 0.9)], [BOX], 0.0),  # less than half
        ([], [BOX], 0.0),
    ],
)
def test_average_precision_of_hand_made_cases(found: list[Any], truth: list[list[float]], area: float) -> None:
    boxes = torch.tensor([box for box, _ in found]).reshape(-1, 4)
    scores = torch.tensor([score for _, score in found])
    seen = Detections(boxes, torch.zeros(len(found), dtype=torch.int64), scores)
    nothing = Detections(torch.empty(0, 4), torch.empty(0, dtype=torch.int64), torch.empty(0))
    truths = [torch.tensor(truth), torch.empty(0, 4)]
    labels = [torch.zeros(len(truth), dtype=torch.int64), torch.empty(0, dtype=torch.int64)]
    areas = average_precision([seen, nothing], truths, labels, classes=2)
    assert float(areas[0]) == pytest.approx(area)
    assert areas[1].isnan()


def test_boxes_are_read_as_fractions_and_images_need_none(tmp_path: Path) -> None:
    lines = [
        {"file_name": "a/1.png", "objects": [{"bbox": [2, 1, 4, 2], "category": "cat"}]},
        {"file_name": "b/1.png", "objects": {"bbox": [], "category": []}},
    ]
    members: dict[str, bytes | str] = {"d/a/1.png": png(np.zeros((4, 8))), "d/b/1.png": png(np.zeros((4, 8)))}
    data = archive(tmp_path / "data", {"metadata.jsonl": "\n".join(map(json.dumps, lines)), **members})
    found = read_boxed(data, size=(2, 2), channels=3)
    assert found.class_names == ("cat",)
    assert found.boxes[0].tolist() == [[0.5, 0.5, 0.5, 0.5]]
    assert found.labels.tolist() == [[0], [-1]]


def line(box: Any, name: str = "1.png", **objects: Any) -> str:
    return json.dumps({"file_name": name, "objects": {"bbox": [box], "category": ["cat"], **objects}})


WRONG = {
    "outside": ({"m.jsonl": line([5, 0, 5, 2])}, "m.jsonl, line 1: box [5, 0, 5, 2] leaves its image, which is 8x4"),
    "no area": ({"m.jsonl": line([0, 0, 0, 2])}, "m.jsonl, line 1: box [0, 0, 0, 2] has no area"),
    "huge": ({"m.jsonl": line([0, 0, 10**400, 2])}, "m.jsonl, line 1: "),
    "no box": ({"m.jsonl": line("x")}, "m.jsonl, line 1: a box is [left, top, width, height]"),
    "no image": ({"m.jsonl": line([0, 0, 2, 2], "2.png")}, "m.jsonl, line 1: there is no image '2.png'"),
    "unequal": ({"m.jsonl": line([0, 0, 2, 2], category=[])}, "m.jsonl, line 1: needs as many of bbox"),
    "not named": ({"m.jsonl": line([0, 0, 2, 2]), "2.png": png(np.zeros((4, 8)))}, "2.png: is not named in m.jsonl"),
    "not JSON": ({"m.json": "{"}, "m.json: is not JSON"),
    "deep": ({"m.json": "[" * 100_000}, "m.json: is not JSON"),
    "not COCO": ({"m.json": '{"images": []}'}, "m.json: is not COCO's: send"),
    "no category": (
        {"m.json": '{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1}], "categories": []}'},
        "m.json, annotation 1: category_id None is not among the categories",
    ),
    "twice": ({"m.jsonl": line([0, 0, 2, 2]), "n.json": "{}"}, "n.json: boxes are told twice"),
    "broken": ({"m.jsonl": line([0, 0, 2, 2]), "3.png": b"\x89PNG\r\n"}, "3.png: is not an image"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_by_member_or_line(tmp_path: Path, name: str) -> None:
    members, message = WRONG[name]
    data = archive(tmp_path / "data", {"1.png": png(np.zeros((4, 8))), **members})
    with pytest.raises(InvalidData) as raised:
        inspect(data)
    assert any(str(problem).startswith(message) for problem in raised.value.problems), raised.value.problems


def test_frames_are_drawn_where_it_is_sure() -> None:
    image = torch.zeros(1, 64, 64, dtype=torch.uint8)
    boxes = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    found = drawn(image, Detections(boxes, torch.tensor([0, 0]), torch.tensor([0.9, 0.2])), ["cat"])
    assert found.shape == (3, 256, 256)
    assert found[0, 64, 64:128].min() == 1
    assert found[:, 130:, 130:].max() == 0


def test_refuses_models_that_learn_otherwise(tmp_path: Path, quarters: Path) -> None:
    transformers.RTDetrConfig().save_pretrained(tmp_path / "base")
    with pytest.raises(InvalidData, match="type 'rt_detr' is no base here: name one of detr, yolos"):
        trained(tmp_path / "1", {**SPEC, "steps": 1}, dataset=quarters, base=tmp_path / "base")
