"""Training gated models of transformers: as the original with all gates on, and what gates, dropout and checkpoints do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", reason="transformers is not installed (tercet[transformers])")

from hugging_face import assert_equal_where, gated_layers, made, open_all, tokens
from tercet.integrations.transformers import arbitrate, count_compute


@pytest.mark.parametrize("mode", ["dense", "compact"])
def test_all_on_trains_as_the_original(mode: str) -> None:
    options = {"num_labels": 3, "classifier_dropout": 0.0}
    model = made("BertForSequenceClassification", "BertConfig", **options).train()
    gated = arbitrate(copy.deepcopy(model), mode=mode)
    open_all(gated)
    batch, labels = tokens(), torch.tensor([0, 2, 1])
    for one in (model, gated):
        one(**batch, labels=labels).loss.backward()
    ours = dict(gated.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("mode", ["dense", "compact"])
def test_gates_learn_from_the_task_and_the_penalty(mode: str) -> None:
    gated = arbitrate(made("RobertaForSequenceClassification", "RobertaConfig"), mode=mode).train()
    arbiters = [
        arbiter.weight for x in gated_layers(gated) for arbiter in (x.attention_arbiter, x.feed_forward_arbiter)
    ]
    with count_compute(gated) as costs:
        loss = gated(**tokens(), labels=torch.tensor([0, 1, 1])).loss
    for value in (loss, costs[0].penalty):
        gradients = torch.autograd.grad(value, arbiters, retain_graph=True)
        assert all(float(gradient.abs().max()) > 0 for gradient in gradients)
    before = costs[0].penalty.item()
    with torch.no_grad():
        for weight, gradient in zip(arbiters, gradients, strict=True):
            weight -= 2 * gradient / gradient.norm()
    with count_compute(gated) as costs:
        gated(**tokens())
    assert costs[0].penalty.item() < before


@pytest.mark.parametrize("mode", ["dense", "compact"])
@pytest.mark.parametrize("where", ["attention.self.dropout", "attention.output.dropout", "output.dropout"])
def test_dropout_is_where_it_was(where: str, mode: str) -> None:
    model, batch = made(attention="eager").train(), tokens()
    gated = arbitrate(copy.deepcopy(model), mode=mode)
    open_all(gated)
    untouched = model(**batch).last_hidden_state
    for one in (model, gated):
        for layer in one.encoder.layer:
            layer.get_submodule(where).p = 1.0  # drops all, so that nothing is left to chance
    want = model(**batch).last_hidden_state
    assert not torch.allclose(want, untouched)
    assert_equal_where(batch["attention_mask"].bool(), gated(**batch).last_hidden_state, want)
    assert_equal_where(batch["attention_mask"].bool(), gated.eval()(**batch).last_hidden_state, untouched)


def test_gradient_checkpoints_apply() -> None:
    model, batch = made().train(), tokens()
    gated = arbitrate(model)
    gradients: list[dict[str, Tensor]] = []
    for checkpointed in (False, True):
        if checkpointed:
            name = "activation" if hasattr(gated, "activation_checkpointing_enable") else "gradient"  # since 5.23
            enable = getattr(gated, f"{name}_checkpointing_enable")
            enable(**{f"{name}_checkpointing_kwargs": {"use_reentrant": False}})
        gated.zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(5)  # of the gates
            gated(**batch).last_hidden_state.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in gated.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, want in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="count_compute: gradient checkpointing must be off"), count_compute(gated):
        pass
