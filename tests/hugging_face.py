"""Small models of transformers, batches for them, and their gated layers; import it where transformers is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tercet.integrations.transformers import ArbitratedLayer

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
         "max_position_embeddings": 40, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip
FAMILIES = {
    "BertModel": ("BertConfig", {}),
    "BertGenerationEncoder": ("BertGenerationConfig", {}),
    "CamembertModel": ("CamembertConfig", {}),
    "Data2VecTextModel": ("Data2VecTextConfig", {}),
    "ElectraModel": ("ElectraConfig", {"embedding_size": 8}),
    "ErnieModel": ("ErnieConfig", {}),
    "RobertaModel": ("RobertaConfig", {}),
    "XLMRobertaModel": ("XLMRobertaConfig", {}),
}


def made(kind: str = "BertModel", config: str | None = None, attention: str | None = None, **options: Any) -> Any:
    """A model in float32, every weight random: norms and biases too."""
    if attention == "sdpa" and not getattr(transformers, kind)._supports_sdpa:
        pytest.skip(f"transformers {transformers.__version__} has no sdpa for {kind}")
    settings = {**SIZES, **FAMILIES.get(kind, ("", {}))[1], **options}
    config = config or FAMILIES[kind][0]
    model = getattr(transformers, kind)(
        getattr(transformers, config)(**settings, attn_implementation=attention)
    ).eval()  # fmt: skip
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng) + name.endswith("LayerNorm.weight"))
    return model


def tokens(lengths: tuple[int, ...] = (9, 6, 1), seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    ids = (4 + torch.randperm(46, generator=rng))[: len(lengths) * max(lengths)].view(len(lengths), -1)  # no ties
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids.masked_fill(~mask, 1), "attention_mask": mask.long()}


def on(batch: dict[str, Tensor], layers: int = 2) -> Tensor:
    return torch.ones(layers, 2, *batch["input_ids"].shape, dtype=torch.bool)


def gated_layers(model: nn.Module) -> list[ArbitratedLayer]:
    return [module for module in model.modules() if isinstance(module, ArbitratedLayer)]


def open_all(model: nn.Module) -> None:
    """So far that no noise in training shuts a gate."""
    for layer in gated_layers(model):
        for arbiter in (layer.attention_arbiter, layer.feed_forward_arbiter):
            nn.init.zeros_(arbiter.weight)
            nn.init.constant_(arbiter.bias, 1e3)


def assert_equal_where(valid: Tensor, got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(got[valid], want[valid], rtol=tolerance, atol=tolerance)
