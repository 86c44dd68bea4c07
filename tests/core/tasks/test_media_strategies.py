"""Every strategy works with every task of images and sound."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from contract import run_example

from core import load_model
from core.data.examples import write_boxed, write_recordings, write_segmented, write_speech
from core.registry import Example

SCALING = {"size": {"height": 32, "width": 32}, "image_mean": [0.5], "image_std": [0.25]}


def segformer(folder: Path) -> None:
    config = transformers.SegformerConfig(
        num_channels=1, hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, num_attention_heads=[1, 2],
        sr_ratios=[2, 1], strides=[2, 2], patch_sizes=[3, 3], mlp_ratios=[2, 2], decoder_hidden_size=16,
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SCALING))


def yolos(folder: Path) -> None:
    config = transformers.YolosConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=8, num_detection_tokens=3, num_channels=1,
    )  # fmt: skip
    transformers.YolosForObjectDetection(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SCALING))


def wav2vec2(folder: Path) -> None:
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(20, 8), conv_kernel=(40, 16), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer", do_stable_layer_norm=True, mask_time_prob=0.0, classifier_proj_size=8,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True).save_pretrained(folder)


TASKS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "semantic_segmentation": (segformer, write_segmented),
    "object_detection": (yolos, write_boxed),
    "audio_classification": (wav2vec2, write_recordings),
    "speech_recognition": (wav2vec2, write_speech),
}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("strategy", ["frozen_encoder", "gradual", "lora"])
@pytest.mark.parametrize("task", TASKS)
def test_learns_a_step_and_opens(tmp_path: Path, task: str, strategy: str) -> None:
    write_base, write_dataset = TASKS[task]
    torch.manual_seed(0)
    (tmp_path / "base").mkdir()
    write_base(tmp_path / "base")
    write_dataset(tmp_path / "data")
    spec = {"method": "fine_tuning", "task": task, "base": "model-1", "strategy": strategy, "steps": 2, "batch_size": 4}
    inputs = {"dataset": tmp_path / "data", "base": tmp_path / "base"}
    outcome = run_example(Example({**spec, "ema": 0.5}, write_dataset), tmp_path / "run", inputs=inputs)
    assert outcome is not None
    assert outcome.metrics["train_loss"] > 0
    assert (tmp_path / "run" / "artifacts" / "adapter").exists() == (strategy == "lora")
    names = dict(load_model(tmp_path / "run" / "artifacts").named_parameters())
    assert not [name for name in names if "lora" in name]
