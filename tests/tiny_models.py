"""Tiny random-weight models of many architectures, made in milliseconds, with a byte-level tokenizer."""

from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from steering.models.loading import LanguageModel, wrap_model

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, LAYERS, HEADS = 32, 4, 4
LLAMA_LIKE = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
GPT_LIKE = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
ARCHITECTURES: dict[str, dict] = {
    "llama": LLAMA_LIKE,
    "mistral": LLAMA_LIKE,
    "mixtral": {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": LLAMA_LIKE,
    "qwen3": LLAMA_LIKE,
    "gemma": LLAMA_LIKE,
    "gemma2": {**LLAMA_LIKE, "sliding_window": 256},
    "gemma3_text": {**LLAMA_LIKE, "sliding_window": 256},
    "phi3": LLAMA_LIKE,
    "olmo2": LLAMA_LIKE,
    "stablelm": LLAMA_LIKE,
    "cohere": LLAMA_LIKE,
    "granite": LLAMA_LIKE,
    "gpt2": {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 512},
    "gpt_neox": {**GPT_LIKE, "intermediate_size": 64, "max_position_embeddings": 512},
    "opt": {**GPT_LIKE, "ffn_dim": 64, "word_embed_proj_dim": HIDDEN, "max_position_embeddings": 512},
    "falcon": {**GPT_LIKE, "new_decoder_architecture": True, "num_kv_heads": 2},
    "bloom": {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS},
    "mpt": {"d_model": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": 512},
    "gpt_neo": {  # local attention by place in the sequence
        "hidden_size": HIDDEN,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 64,
        "max_position_embeddings": 512,
    },
    "gpt_oss": {**LLAMA_LIKE, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 256},
    "deepseek_v3": {  # latent attention
        **LLAMA_LIKE,
        "num_key_value_heads": HEADS,
        **{name: 8 for name in ("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")},
        **{"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
        **{"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    },
    "qwen3_next": {  # three layers of linear attention, one of full attention, experts
        **LLAMA_LIKE,
        **{"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
        **{"shared_expert_intermediate_size": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 2},
        **{"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    },
    "mamba": {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "state_size": 4},  # no attention, no key-value cache
    "gemma3": {  # reads images too: the language model is one part, its settings stand in `text_config`
        "text_config": {**LLAMA_LIKE, "vocab_size": 260, "sliding_window": 256},
        "vision_config": {
            **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            **{"image_size": 28, "patch_size": 14},
        },
    },
}

PLAIN = {"bloom", "mpt", "gpt_neo", "qwen3_next", "mamba"}
"""Those that cannot be run in packs: linear biases or windows by place in the sequence, and recurrent ones."""


def tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """Bytes as tokens, after the four special ones."""
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        unk_token="<|unk|>",
    )
    if chat:
        made.chat_template = TEMPLATE
    return made


def tiny_network(architecture: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Weights large enough that masks and positions leave traces in the logits."""
    torch.manual_seed(seed)
    settings = {"vocab_size": 260, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(architecture, **settings, **{**ARCHITECTURES.get(architecture, {}), **changes})
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    network = kind.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return network


def tiny_model(architecture: str = "llama", *, chat: bool = True, seed: int = 0, **changes: Any) -> LanguageModel:
    """A steerable tiny model; `changes` go into its configuration."""
    return wrap_model(tiny_network(architecture, seed, **changes), tokenizer(chat), name=f"tiny-{architecture}")


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(model: LanguageModel, path: Path, kind: gguf.GGMLQuantizationType) -> Path:
    """A tiny Llama as llama.cpp stores it, its matrices as blocks of that kind."""
    config, words = model.network.config, model.tokenizer
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words.convert_ids_to_tokens(range(len(words))))
    writer.add_token_scores([0.0] * len(words))  # transformers makes merges of them: none
    writer.add_token_types([gguf.TokenType.CONTROL] * 4 + [gguf.TokenType.NORMAL] * (len(words) - 4))
    writer.add_bos_token_id(words.bos_token_id)
    writer.add_eos_token_id(words.eos_token_id)
    writer.add_pad_token_id(words.pad_token_id)
    writer.add_unk_token_id(words.unk_token_id)
    writer.add_chat_template(words.chat_template)
    for name, parameter in model.network.named_parameters():
        for ours, theirs in GGUF_NAMES.items():
            name = name.replace(ours, theirs)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
        for part, count in heads.items():
            if part in name:  # llama.cpp turns neighbours where transformers turns halves
                parameter = parameter.view(count, 2, -1, config.hidden_size).transpose(1, 2).reshape(parameter.shape)
        values = parameter.detach().contiguous().numpy()
        if values.ndim > 1:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
