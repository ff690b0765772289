"""Modules of torch and transformers as black boxes, asked without changing them."""

import builtins
from types import SimpleNamespace

import numpy as np
import pytest

from attnlearn import oracles

pytestmark = pytest.mark.slow  # torch takes seconds to import
REASON = "torch is an extra: pip install 'attnlearn[torch]'"


def relative(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch", reason=REASON)
    torch.manual_seed(0)
    return torch


@pytest.fixture
def bert():
    pytest.importorskip("torch", reason=REASON)
    models = pytest.importorskip("transformers.models.bert.modeling_bert", reason="transformers goes with torch")

    def make(name, **options):
        settings = {"hidden_size": 12, "num_attention_heads": 3, "attn_implementation": "eager", **options}
        module = getattr(models, name)(models.BertConfig(**settings))
        for parameter in module.parameters():
            parameter.data.normal_()
        return module

    return make


def multihead(torch, **options):
    module = torch.nn.MultiheadAttention(12, 3, dropout=0.5, dtype=torch.float64, **options)
    for parameter in module.parameters():
        parameter.data.normal_()
    return module


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_multihead_attention_answers_as_its_circuits(torch, batch_first, bias, causal, key):
    X = key.normal(size=(4, 5, 12))
    oracle = oracles.from_torch(multihead(torch, batch_first=batch_first, bias=bias), causal=causal)
    assert relative(oracle.ask(X), oracle.truth(X)) < 1e-12  # one formula twice in float64, with room
    assert oracle.truth.heads == 3 and oracle.ledger.calls == 4 and oracle.name == "MultiheadAttention"
    assert (oracle.truth.slots.mask is None) != causal


def test_the_answer_is_that_of_the_module_without_dropout(torch, key):
    module = multihead(torch, batch_first=True).eval()
    X = key.normal(size=(2, 5, 12))
    T = torch.from_numpy(X)
    expected = module(T, T, T, need_weights=False)[0].detach().numpy()
    np.testing.assert_allclose(oracles.from_torch(module).ask(X), expected, rtol=0, atol=1e-12)


def test_the_module_is_left_in_the_mode_it_was_in(torch, key):
    module = multihead(torch).train()
    module.out_proj.eval()
    oracles.from_torch(module).ask(key.normal(size=(1, 2, 12)))
    assert module.training and not module.out_proj.training
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["BertSelfAttention", "BertAttention"])
def test_bert_answers_as_its_circuits(bert, name, causal, implementation, key):
    X = key.normal(size=(3, 5, 12))
    module = bert(name, attn_implementation=implementation)
    oracle = oracles.from_torch(module, causal=causal, dtype="float64")
    assert relative(oracle.ask(X), oracle.truth(X)) < 1e-12
    assert next(module.parameters()).dtype != np.float64  # the copy was cast, not the module
    assert oracle.name == name


def test_bert_attention_leaves_residual_and_norm_outside(bert):
    module = bert("BertAttention")
    whole = oracles.from_torch(module, dtype="float64").ask(np.zeros((1, 1, 12)))
    value = module.self.value.bias.double()
    expected = module.output.dense.double()(value).detach().numpy()
    np.testing.assert_allclose(whole[0, 0], expected, rtol=0, atol=1e-12)


def test_a_module_in_float32_is_asked_in_float32(bert, key):
    X = key.normal(size=(3, 5, 12)).astype(np.float32)
    oracle = oracles.from_torch(bert("BertSelfAttention"))
    assert oracle.epsilon == 1.2e-7
    assert 1e-9 < relative(oracle.ask(X), oracle.truth(X)) < 1e-4  # float32, logits of size 10


def test_refuses_modules_that_are_no_layer_of_this_family(torch):
    other = torch.nn.MultiheadAttention(12, 3, kdim=5)
    with pytest.raises(ValueError, match="wanted self-attention, got keys of width 5"):
        oracles.from_torch(other)
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ValueError, match="add a token of their own"):
            oracles.from_torch(torch.nn.MultiheadAttention(12, 3, **options))
    with pytest.raises(TypeError, match=r"wanted nn.MultiheadAttention .*, got Linear; any other module"):
        oracles.from_torch(torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="dtype must be 'float64' or 'float32', got 'float16'"):
        oracles.from_torch(multihead(torch).half())


def test_refuses_relative_position_embeddings(bert):
    module = bert("BertSelfAttention")
    module.position_embedding_type = "relative_key"
    with pytest.raises(ValueError, match="wanted absolute position embeddings, got 'relative_key'"):
        oracles.from_torch(module)


def test_names_the_extra_where_torch_is_missing(monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(ImportError, match=r"pip install 'attnlearn\[torch\]'"):
        oracles.from_torch(SimpleNamespace())
