"""A small BERT on disk: width 12, 3 heads, 2 layers, with its configuration and its word pieces."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH, HEADS, LAYERS, INNER, POSITIONS = 12, 3, 2, 20, 7
WORDS = ["[CLS]", "[SEP]", "[UNK]", "a", "cat", "sat"]


def bert_tensors():
    key = np.random.default_rng(1)
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
    }
    for layer in range(LAYERS):
        start = f"encoder.layer.{layer}."
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{start}attention.{name}.weight"] = (WIDTH, WIDTH)
            shapes[f"{start}attention.{name}.bias"] = (WIDTH,)
        shapes[f"{start}intermediate.dense.weight"], shapes[f"{start}intermediate.dense.bias"] = (
            (INNER, WIDTH),
            (INNER,),
        )
        shapes[f"{start}output.dense.weight"], shapes[f"{start}output.dense.bias"] = (WIDTH, INNER), (WIDTH,)
    norms = [f"encoder.layer.{layer}.{name}" for layer in range(LAYERS) for name in ("attention.output", "output")]
    for norm in ["embeddings", *norms]:
        shapes[f"{norm}.LayerNorm.weight"] = shapes[f"{norm}.LayerNorm.bias"] = (WIDTH,)
    return {name: key.normal(size=shape) / 2 for name, shape in shapes.items()}


@pytest.fixture
def tensors():
    return bert_tensors()


@pytest.fixture
def bert_file(tmp_path, tensors):
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": HEADS, "layer_norm_eps": 1e-5}))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", 0), ("[SEP]", 1)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=marks)
    tokenizer.enable_padding(length=20)  # as some published files do; sentences must not be padded
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "model.safetensors"
