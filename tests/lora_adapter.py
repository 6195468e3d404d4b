"""A LoRA adapter with weights drawn at random, large enough that the model writes something else."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

RANK = 4


def make_adapter(folder: Path, network: PreTrainedModel, base: str, scale: float = 0.05) -> Path:
    """Write an adapter of the network's q_proj and v_proj, as `peft` would; `base` is what it says it is made for."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, weights = torch.Generator().manual_seed(0), {}
    for name, module in network.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            key = f"base_model.model.{name}"
            weights[f"{key}.lora_A.weight"] = scale * torch.randn(RANK, module.in_features, generator=draw)
            weights[f"{key}.lora_B.weight"] = scale * torch.randn(module.out_features, RANK, generator=draw)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
