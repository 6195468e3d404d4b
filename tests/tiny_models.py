"""Tiny random-weight models of many architectures, made in milliseconds, with a byte-level tokenizer."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from steering.models import LanguageModel, wrap_model

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
}


def tokenizer(chat: bool = True) -> PreTrainedTokenizerFast:
    """Bytes as tokens, after the four special ones."""
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<|unk|>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>", unk_token="<|unk|>"
    )
    if chat:
        made.chat_template = TEMPLATE
    return made


def tiny_model(architecture: str = "llama", *, chat: bool = True, seed: int = 0) -> LanguageModel:
    """A steerable tiny model; weights large enough that masks and positions leave traces in the logits."""
    torch.manual_seed(seed)
    settings = {"vocab_size": 260, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = AutoConfig.for_model(architecture, **settings, **ARCHITECTURES[architecture])
    network = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return wrap_model(network, tokenizer(chat), name=f"tiny-{architecture}")
