"""The Hugging Face integration against the models themselves: all on, gated against masked dense, weights, errors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

pytest.importorskip("transformers", reason="transformers is not installed (tercet[transformers])")

import transformers
from transformers.models.bert.modeling_bert import BertLayer

from hugging_face import FAMILIES, assert_equal_where, made, on, tokens
from tercet.files import write_tensors
from tercet.integrations.transformers import LAYERS, arbitrate, calibrate_, count_compute, load_gates
from tercet.nn import ArbitratedEncoder, ArbitratedEncoderLayer

KEPT = pytest.mark.parametrize("keys", ["kept", "all"])


def test_every_supported_layer_has_a_family() -> None:
    layers = {type(made(name).encoder.layer[0]).__name__ for name in FAMILIES}
    assert layers == set(LAYERS)


@pytest.mark.parametrize("capacity", [None, 1.0])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_all_on_is_the_original(name: str, attention: str, capacity: float | None) -> None:
    model, batch = made(name, attention=attention), tokens()
    want = model(**batch).last_hidden_state
    unpadded = model(batch["input_ids"][:1]).last_hidden_state
    for keys in ("kept", "all"):
        gated = arbitrate(copy.deepcopy(model), keys=keys, capacity=capacity)
        valid = batch["attention_mask"].bool()
        assert_equal_where(valid, gated(**batch).last_hidden_state, want)  # new arbitrators leave everything on
        with count_compute(gated, on(batch)) as costs:
            assert_equal_where(valid, gated(**batch).last_hidden_state, want)
        assert torch.equal(costs[0].gates.all(0).all(0), valid)
        torch.testing.assert_close(gated(batch["input_ids"][:1]).last_hidden_state, unpadded, rtol=1e-5, atol=1e-5)


def masked_dense(model: Any, x: Tensor, valid: Tensor, gates: Tensor, keys: str, seen: Tensor | None = None) -> Tensor:
    """Every layer of an original model, then what the gates keep; `seen` bool [B, 1, T, T] beside."""
    for layer, (attention, feed_forward) in zip(model.encoder.layer, gates & valid, strict=True):
        offered = (attention if keys == "kept" else valid)[:, None, None, :]
        offered = offered & seen if seen is not None else offered.expand(-1, -1, x.shape[1], -1)
        bias = torch.zeros(offered.shape, dtype=x.dtype).masked_fill(~offered, torch.finfo(x.dtype).min)
        x = torch.where(attention[..., None], layer.attention(x, bias)[0], x)
        x = torch.where(feed_forward[..., None], layer.feed_forward_chunk(x), x)
    return x


@KEPT
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple),
    rate=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    capacity=st.sampled_from([None, 1.0]),
    name=st.sampled_from(["BertModel", "RobertaModel"]),
    seed=st.integers(0, 2**31 - 1),
)
@torch.no_grad()
def test_gated_is_masked_dense(
    keys: str, lengths: tuple[int, ...], rate: float, capacity: float | None, name: str, seed: int
) -> None:
    model, batch = made(name, attention="eager").double(), tokens(lengths, seed)
    valid = batch["attention_mask"].bool()
    gates = torch.rand(2, 2, *valid.shape, generator=torch.Generator().manual_seed(seed)) < rate
    embedded = model(**batch, output_hidden_states=True).hidden_states[0]
    want = masked_dense(model, embedded, valid, gates, keys)
    gated = arbitrate(model, keys=keys, capacity=capacity)
    with count_compute(gated, gates) as costs:
        got = gated(**batch).last_hidden_state
    torch.testing.assert_close(got, want)  # padding too: it is what entered
    assert torch.equal(costs[0].gates, gates & valid)


def as_given(pairs: Tensor, attention: str) -> Tensor:
    """Which pairs see each other, bool [B, T, T], as the installed transformers takes such a mask."""
    if transformers.__version__ < "5":
        return pairs.long()
    seen = pairs[:, None]
    return seen if attention == "sdpa" else torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)


@KEPT
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("capacity", [None, 1.0])
@torch.no_grad()
def test_masks_of_pairs_and_windows(attention: str, keys: str, capacity: float | None) -> None:
    model, batch = made(attention=attention), tokens((9, 9))
    valid = torch.ones(2, 9, dtype=torch.bool)
    third = torch.arange(9) // 3
    pairs = (third[:, None] == third[None, :]).expand(2, -1, -1)  # packed sequences: each sees its own three
    gates = torch.rand(2, 2, 2, 9, generator=torch.Generator().manual_seed(3)) < 0.5
    gap = torch.arange(9)[None, :] - torch.arange(9)[:, None]
    embedded = model(**batch, output_hidden_states=True).hidden_states[0]
    eager = made(attention="eager")
    for window, near in ((None, gap == gap), (2, gap.abs() <= 2), ((4, 1), (gap >= -4) & (gap <= 1))):
        gated = arbitrate(copy.deepcopy(model), keys=keys, window=window, capacity=capacity)
        for forced in (on(batch), gates):
            with count_compute(gated, forced):
                got = gated(batch["input_ids"], attention_mask=as_given(pairs, attention)).last_hidden_state
            want = masked_dense(eager, embedded, valid, forced, keys, (pairs & near)[:, None])
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "config", "output"),
    [
        ("BertForSequenceClassification", "BertConfig", "logits"),
        ("BertForMaskedLM", "BertConfig", "logits"),
        ("RobertaForTokenClassification", "RobertaConfig", "logits"),
        ("RobertaForQuestionAnswering", "RobertaConfig", "start_logits"),
        ("ElectraForPreTraining", "ElectraConfig", "logits"),
    ],
)
@torch.no_grad()
def test_heads_stay_on_top(name: str, config: str, output: str) -> None:
    model, batch = made(name, config), tokens()
    want = model(**batch)[output]
    got = arbitrate(model)(**batch)[output]
    where = batch["attention_mask"].bool() if want.shape[:2] == batch["input_ids"].shape else slice(None)
    torch.testing.assert_close(got[where], want[where], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_and_pickles_of_whole_models(name: str, tmp_path: Path) -> None:
    """They decide and compute as the model does, and share nothing with it."""
    batch = tokens()
    gated = calibrate_(arbitrate(made(name), keys="all", capacity=0.8), batch, keep=(0.5, 0.6))
    torch.save(gated, tmp_path / "model.pt")
    with torch.no_grad(), count_compute(gated) as costs:
        want = gated(**batch).last_hidden_state
        copies = [copy.deepcopy(gated)]  # while it is counted, too
    copies += [copy.deepcopy(copies[0]), torch.load(tmp_path / "model.pt", weights_only=False)]
    for other in copies:
        with torch.no_grad(), count_compute(other) as counted:
            assert torch.equal(other(**batch).last_hidden_state, want)
        assert torch.equal(counted[0].gates, costs[0].gates)
        layers = zip(other.encoder.layer, gated.encoder.layer, strict=True)
        assert all(type(one) is type(two) and one is not two for one, two in layers)
        other.encoder.layer[0].intermediate.dense.weight.data.zero_()
    assert len(costs) == 1
    with torch.no_grad():
        assert torch.equal(gated(**batch).last_hidden_state, want)


def test_weights_keep_their_names_and_files_load(tmp_path: Path) -> None:
    model, batch = made("BertForSequenceClassification", "BertConfig"), tokens()
    names = set(model.state_dict())
    want = model(**batch).logits
    gated = calibrate_(arbitrate(model), batch, keep=(0.5, 0.5))
    added = set(gated.state_dict()) - names
    assert names <= set(gated.state_dict())
    assert {name.split(".")[4] for name in added} == {
        "attention_arbiter", "feed_forward_arbiter", "attention_threshold", "feed_forward_threshold",
    }  # fmt: skip
    gated.save_pretrained(tmp_path)
    plain = transformers.BertForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(plain(**batch).logits, want)
    again = load_gates(arbitrate(plain), tmp_path)
    assert all(torch.equal(part, gated.state_dict()[name]) for name, part in again.state_dict().items())
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, gated(**batch).logits)
        assert not torch.allclose(again(**batch).logits, want)


def test_gates_of_a_head_with_tied_weights_load(tmp_path: Path) -> None:
    gated = calibrate_(arbitrate(made("BertForMaskedLM", "BertConfig")), tokens(), keep=(0.5, 0.5))
    gated.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again = load_gates(arbitrate(transformers.BertForMaskedLM.from_pretrained(tmp_path)), tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**tokens()).logits, gated(**tokens()).logits)


def test_gates_that_are_not_there_are_named(tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"tercet\.load_gates: model must come from arbitrate"):
        load_gates(model, tmp_path)
    gated = arbitrate(model)
    with pytest.raises(ValueError, match=r"expected the gate encoder\.layer\.0\.attention_threshold \[\], got none"):
        load_gates(gated, tmp_path)
    with pytest.raises(ValueError, match="expected the safetensors files of a saved model, got none"):
        load_gates(gated, tmp_path / "absent")
    small = made()
    tensors = {**gated.state_dict(), "encoder.layer.0.attention_arbiter.weight": torch.zeros(1, 3)}
    write_tensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(
        ValueError, match=r"expected the gate .*attention_arbiter\.weight \[1, \d+\], got one of \[1, 3\]"
    ):
        load_gates(arbitrate(small), tmp_path)


@pytest.mark.parametrize("called_before", [False, True])
@torch.no_grad()
def test_hidden_states_are_recorded(called_before: bool) -> None:
    model, batch = made(), tokens()
    want = copy.deepcopy(model)(**batch, output_hidden_states=True).hidden_states
    if called_before:
        model(**batch, output_hidden_states=True)
    got = arbitrate(model)(**batch, output_hidden_states=True).hidden_states
    assert len(got) == len(want) == 3
    for ours, theirs in zip(got, want, strict=True):
        assert_equal_where(batch["attention_mask"].bool(), ours, theirs)


def test_the_layer_that_was_replaced_is_as_it_was() -> None:
    model = made()
    layer = model.encoder.layer[0]
    names = set(layer.state_dict())
    arbitrate(model)
    assert set(layer.state_dict()) == names
    assert isinstance(model.encoder.layer[0], type(layer))


@KEPT
@torch.no_grad()
def test_cost_is_that_of_the_same_encoder(keys: str) -> None:
    batch = tokens((7, 4))
    gates = torch.rand(2, 2, 2, 7, generator=torch.Generator().manual_seed(4)) < 0.5
    model = arbitrate(made(), keys=keys, window=3)
    with count_compute(model, gates) as costs:
        model(**batch)
        model(**batch)
    model(**batch)
    assert len(costs) == 2
    twin = ArbitratedEncoder(ArbitratedEncoderLayer(16, 2, 24, keys=keys, window=3), 2).eval()
    padding = ~batch["attention_mask"].bool()
    _, want = twin(torch.randn(2, 7, 16), src_key_padding_mask=padding, gates=gates)
    for cost in costs:
        assert torch.equal(cost.multiply_adds, want.multiply_adds)
        assert torch.equal(cost.dense, want.dense)
        torch.testing.assert_close(cost.penalty, want.penalty)


@torch.no_grad()
def test_counting_goes_on_after_an_error() -> None:
    model, batch = arbitrate(made()), tokens()
    second = model.encoder.layer[1]
    with count_compute(model) as costs:
        handle = second.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(**batch)
        handle.remove()
        model(**batch)
    assert [cost.gates.shape for cost in costs] == [(2, 2, 3, 9)]


@pytest.mark.parametrize("keep", [(0.5, 0.25), (0.0, 1.0), (1.0, 0.0)])
def test_calibrate(keep: tuple[float, float]) -> None:
    model, batch = arbitrate(made()), tokens()
    model.train()
    model.encoder.layer[1].eval()  # a frozen part stays as it is
    flags = [module.training for module in model.modules()]
    assert calibrate_(model, batch, keep) is model
    assert [module.training for module in model.modules()] == flags
    model.eval()
    with torch.no_grad(), count_compute(model) as costs:
        model(**batch)
    kept = costs[0].gates.sum((2, 3))
    assert kept.tolist() == [[round(share * 16) for share in keep]] * 2
    ids = tokens((9, 9, 9))["input_ids"]
    with torch.no_grad(), count_compute(calibrate_(model, ids, keep)) as costs:
        model(ids)
    assert costs[0].gates.sum((2, 3)).tolist() == [[round(share * 27) for share in keep]] * 2


@torch.no_grad()
def test_adapters_and_hooks_are_called() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, batch = made(), tokens()
    layer = model.encoder.layer[0]
    plain = layer.attention.self.value
    doubled = Doubled(16, 16)
    doubled.load_state_dict(plain.state_dict())
    layer.attention.self.value = doubled
    layer.intermediate.dense.register_forward_hook(lambda module, inputs, out: out + 1)
    want = model(**batch).last_hidden_state
    assert_equal_where(batch["attention_mask"].bool(), arbitrate(model)(**batch).last_hidden_state, want)


@torch.no_grad()
def test_bfloat16_and_other_activations() -> None:
    batch = tokens()
    for activation in ("relu", "gelu_new", "silu"):
        model = made(hidden_act=activation)
        want = model(**batch).last_hidden_state
        assert_equal_where(batch["attention_mask"].bool(), arbitrate(model)(**batch).last_hidden_state, want)
    model = made().bfloat16()
    want = model(**batch).last_hidden_state
    gated = arbitrate(model)
    assert {p.dtype for p in gated.parameters()} == {torch.bfloat16}
    assert_equal_where(batch["attention_mask"].bool(), gated(**batch).last_hidden_state, want, 5e-2)


def pruned() -> Any:
    model = made()
    attention = model.encoder.layer[1].attention.self
    for name in ("query", "key", "value"):
        setattr(attention, name, nn.Linear(16, 8))
    return model


class Own(BertLayer):
    pass


def of_another_class() -> Any:
    model = made()
    for layer in model.encoder.layer:
        layer.__class__ = Own
    return model


def relative() -> Any:
    model = made()
    model.encoder.layer[0].attention.self.position_embedding_type = "relative_key"
    return model


@pytest.mark.parametrize(
    ("build", "options", "error", "message"),
    [
        (lambda: nn.Linear(2, 2), {}, TypeError, r"arbitrate: model must be a model .* BertLayer, .*, got Linear"),
        (lambda: "bert", {}, TypeError, "arbitrate: model must be .*, got str"),
        (of_another_class, {}, TypeError, "arbitrate: model must be .*, got BertModel"),
        (lambda: arbitrate(made()), {}, ValueError, "must not be gated already"),
        (lambda: nn.ModuleList([made(), made()]), {}, ValueError, "must have one encoder, got 2"),
        (lambda: made(is_decoder=True), {}, ValueError, "must be no decoder, got is_decoder=True"),
        (lambda: made(is_decoder=True, add_cross_attention=True), {}, ValueError, "must be no decoder"),
        (lambda: made(chunk_size_feed_forward=4), {}, ValueError, "at once, got chunk_size_feed_forward=4"),
        (lambda: made(attention="eager", output_attentions=True), {}, ValueError, "output_attentions must be False"),
        (relative, {}, ValueError, "must have absolute positions, got position_embedding_type='relative_key'"),
        (pruned, {}, ValueError, "must have all its heads, got 8 of 16"),
        (made, {"keys": "some"}, ValueError, "keys must be one of kept, all, got 'some'"),
        (made, {"mode": "fast"}, ValueError, "mode must be one of dense, compact, got 'fast'"),
        (made, {"window": -1}, ValueError, "none negative, got -1"),
        (made, {"capacity": 0}, ValueError, "capacity must be"),
    ],
)
def test_what_cannot_be_gated_is_refused(
    build: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = build()
    names = list(model.state_dict()) if isinstance(model, nn.Module) else []
    with pytest.raises(error, match=message):
        arbitrate(model, **options)
    assert not names or list(model.state_dict()) == names  # nothing half done


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"output_attentions": True}, ValueError, "output_attentions must not be given to a gated layer"),
        ({"past_key_values": object()}, ValueError, "past_key_values must not"),
        ({"encoder_hidden_states": torch.ones(1)}, ValueError, "encoder_hidden_states must not"),
        ({"attention_mask": torch.ones(1, 4)}, ValueError, r"attention_mask must be \[1, 5\] or .*, got \[1, 4\]"),
        ({"attention_mask": torch.ones(1, 1, 5, 4)}, ValueError, r"got \[1, 1, 5, 4\]"),
        ({"attention_mask": torch.ones(1, 5, 5)}, ValueError, r"got \[1, 5, 5\]"),
        ({"attention_mask": torch.ones(1, 1, 5, 5, dtype=torch.long)}, TypeError, "bool or floating, got torch.int64"),
        ({"attention_mask": [1, 1, 1, 1, 1]}, TypeError, "attention_mask must be a torch.Tensor .*, got list"),
    ],
)
def test_a_layer_refuses_what_it_cannot_honour(given: dict[str, Any], error: type[Exception], message: str) -> None:
    layer = arbitrate(made()).encoder.layer[0]
    with pytest.raises(error, match=message):
        layer(torch.ones(1, 5, 16), **given)


def test_errors_of_counting_and_calibrating() -> None:
    plain, model, batch = made(), arbitrate(made()), tokens()
    with (
        pytest.raises(TypeError, match="count_compute: model must come from arbitrate, got BertModel"),
        count_compute(plain),
    ):
        pass
    with pytest.raises(TypeError, match="calibrate_: model must come from arbitrate, got BertModel"):
        calibrate_(plain, batch, (0.5, 0.5))
    with pytest.raises(ValueError, match="a pair for each of 2 layers, got 1"), count_compute(model, on(batch, 1)):
        pass
    with (
        count_compute(model, on(batch).long()),
        pytest.raises(TypeError, match="count_compute: attention gates must be bool"),
    ):
        model(**batch)
    with count_compute(model, on(tokens((3,)))), pytest.raises(ValueError, match=r"\[B, T\] = \[3, 9\], got \[1, 3\]"):
        model(**batch)
    with count_compute(model), pytest.raises(ValueError, match="calibrate_: model must not be within another"):
        calibrate_(model, batch, (0.5, 0.5))
    with pytest.raises(ValueError, match=r"calibrate_: keep must be two shares in 0..1"):
        calibrate_(model, batch, (0.5, 1.5))
    nothing = {"input_ids": batch["input_ids"], "attention_mask": torch.zeros(3, 9, dtype=torch.long)}
    with pytest.raises(ValueError, match="x must hold at least one frame that is not padding"):
        calibrate_(model, nothing, (0.5, 0.5))
    with torch.no_grad():
        assert model(**batch).last_hidden_state.isfinite().all()  # and nothing is left behind
