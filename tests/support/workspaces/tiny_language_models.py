"""Tiny decoders with random weights, in folders as on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# transformers is imported where it is used: every run of pytest imports this module, and that takes seconds.

SENTENCES = [
    "Toy Story (1995). Animation Children's Comedy",
    "a very long text about wooden toys, trains and cars",
    "Instruct: find items that go with this one. Query:",
]
END = "<|endoftext|>"
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # so that random states differ
}


def qwen3_like(folder: Path) -> Path:
    """A decoder like Qwen3-Embedding: its tokenizer ends texts, and its files say that the last token is pooled."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _tokenizer(appends_end=True)
    _save(Qwen3ForCausalLM, Qwen3Config(vocab_size=len(tokenizer), **SIZES), tokenizer, folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": SIZES["hidden_size"], "pooling_mode_lasttoken": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def mistral_like(folder: Path) -> Path:
    """A decoder like e5-mistral, without files for sentence-transformers; its tokenizer does not end texts."""
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = _tokenizer(appends_end=False)
    config = MistralConfig(vocab_size=len(tokenizer), sliding_window=None, **SIZES)
    _save(MistralForCausalLM, config, tokenizer, folder)
    return folder


def _tokenizer(appends_end: bool) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet)
    )
    if appends_end:
        tokenizer.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def _save(kind: type, config: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)  # type: ignore[attr-defined]
    tokenizer.save_pretrained(folder)
