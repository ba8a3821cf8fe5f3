# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Convert NeMo encoder-decoders to CTranslate2, exactly: same log-probabilities, same greedy output.

CTranslate2 (https://opennmt.net/CTranslate2) runs Transformers in C++ on CPU and GPU, several times faster than NeMo.
"""

import os

import numpy as np
import torch
from ctranslate2.specs import TransformerSpec, common_spec, transformer_spec
from ctranslate2.specs.common_spec import Activation
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common import TokenClassifier
from nemo.collections.nlp.modules.common.transformer.transformer import TransformerDecoderNM, TransformerEncoderNM
from nemo.collections.nlp.modules.common.transformer.transformer_modules import (
    FixedPositionalEncoding,
    PositionWiseFF,
    TransformerEmbedding,
)
from omegaconf import DictConfig
from torch import Tensor, nn

from nemo_distill.archives.config import is_bottleneck
from nemo_distill.data.encoders import is_latent
from nemo_distill.data.languages import language_tokens
from nemo_distill.data.text import pieces
from nemo_distill.decoding.convertible import DEEP_HEAD, LATENT, config_faults, value_of
from nemo_distill.decoding.engine import check_quantization
from nemo_distill.errors import ConversionError

_ACTIVATIONS = {"relu": Activation.RELU, "gelu": Activation.GELU}  # both NeMo's and this GELU are the exact one
SHORTEST_TABLE = 1026
"""Positions that CTranslate2 may come to by default: 1,024 tokens and the two around them."""
NEVER = -1e4
"""Bias of the rows of the head that stand for no token."""
_FUNCTIONS = {"relu": torch.relu, "gelu": nn.functional.gelu}  # as NeMo takes them
_READ = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)  # torch's, as NeMo's are made of them


def conversion_faults(model: MTEncDecModel) -> list[str]:
    """Return why a model does not convert; empty if it does."""
    faults = config_faults(model.cfg)
    if is_latent(model) and not is_bottleneck(model.cfg):
        faults.append(f"a {type(model).__name__}: {LATENT}")
    for side, kind in (("encoder", TransformerEncoderNM), ("decoder", TransformerDecoderNM)):
        if type(getattr(model, side)) is kind:
            faults += _foreign_modules(side, getattr(model, side))
        elif not any(fault.startswith(f"{side}.") for fault in faults):
            faults.append(f"{side}: a {type(getattr(model, side)).__name__}, not NeMo's {kind.__name__}")
    if type(model.log_softmax) is not TokenClassifier:
        return [*faults, f"log_softmax: a {type(model.log_softmax).__name__}, not NeMo's TokenClassifier"]
    faults += _foreign_modules("log_softmax", model.log_softmax)
    layers = model.log_softmax.mlp.layers
    if layers != 1 and not any(fault.startswith("head.num_layers") for fault in faults):
        faults.append(f"head: {(layers + 1) // 2} layers; {DEEP_HEAD}")
    return faults or _other_values(model)


def _foreign_modules(side: str, module: nn.Module) -> list[str]:
    """Name what in a module computes otherwise than its class and the configuration say, once for each kind."""
    found = {}
    for name, each in module.named_modules(prefix=side):
        kind = type(each)
        if kind.__module__.partition(".")[0] != "nemo" and kind not in _READ:
            found.setdefault(kind, f"{name}: a {kind.__name__}, neither NeMo's nor one that NeMo's are made of")
        elif "forward" in vars(each):
            found.setdefault("forward", f"{name}: a {kind.__name__} with a `forward` of its own")
        elif each._forward_hooks or each._forward_pre_hooks:
            found.setdefault("hooks", f"{name}: a {kind.__name__} with forward hooks, which would be left out")
        elif kind in (nn.Linear, nn.LayerNorm) and (each.weight is None or each.bias is None):
            found.setdefault((kind, None), f"{name}: a {kind.__name__} without weight or bias")
    return list(found.values())


def _other_values(model: MTEncDecModel) -> list[str]:
    """Name what NeMo's modules hold that is neither in the configuration nor in their weights."""
    eps, faults = model.decoder.embedding.layer_norm.eps, []
    for side in ("encoder", "decoder"):
        activation = value_of(model.cfg[side], "hidden_act", "relu")
        for name, module in getattr(model, side).named_modules(prefix=side):
            if isinstance(module, PositionWiseFF) and module.act_fn is not _FUNCTIONS[activation]:
                faults.append(f"{name}.act_fn: another than the {activation} of the configuration")
            if isinstance(module, nn.LayerNorm) and module.eps != eps:
                faults.append(f"{name}.eps: {module.eps}; all norms have one, {eps} of the decoder's embedding")
    return faults


def convert(model: MTEncDecModel, directory: str | os.PathLike, quantization: str = "float32") -> None:
    """Write the CTranslate2 model of a NeMo model into an existing directory; the NeMo model stays as it is.

    Pre-LN and post-LN (also mixed), sinusoidal and learned positions, shared and separate embeddings, ReLU and GELU.
    Embeddings of token types are left out, as NeMo leaves them out when it translates.

    Args:
        model: any `MTEncDecModel`.
        directory: gets `model.bin`, `config.json` and the vocabularies.
        quantization: type of the stored weights.

    Raises:
        ConversionError: the model has something that CTranslate2 has not; the message lists all of it.
        InputError: an unknown quantization.

    Example:
        >>> convert(MTEncDecModel.restore_from("student.nemo"), "student_ct2", "int8")  # doctest: +SKIP
    """
    check_quantization(quantization)
    faults = conversion_faults(model)
    if faults:
        raise ConversionError(
            "the model does not convert to CTranslate2: " + "; ".join(faults) + ". Decode it with the engine 'nemo'"
        )
    spec = TransformerSpec(
        _layers_spec(transformer_spec.TransformerEncoderSpec, model.encoder.encoder, model.cfg.encoder),
        _layers_spec(transformer_spec.TransformerDecoderSpec, model.decoder.decoder, model.cfg.decoder),
    )
    _set_embedding(spec.encoder, spec.encoder.embeddings[0], model.encoder.embedding)
    _set_embedding(spec.decoder, spec.decoder.embeddings, model.decoder.embedding)
    for layer, block in zip(spec.encoder.layer, model.encoder.encoder.layers, strict=True):
        _set_self_attention(layer.self_attention, block.first_sub_layer, block.layer_norm_1)
        _set_feed_forward(layer.ffn, block.second_sub_layer, block.layer_norm_2)
    for layer, block in zip(spec.decoder.layer, model.decoder.decoder.layers, strict=True):
        _set_self_attention(layer.self_attention, block.first_sub_layer, block.layer_norm_1)
        _set_cross_attention(layer.attention, block.second_sub_layer, block.layer_norm_2)
        _set_feed_forward(layer.ffn, block.third_sub_layer, block.layer_norm_3)
    for part, module in ((spec.encoder, model.encoder.encoder), (spec.decoder, model.decoder.decoder)):
        if module.final_layer_norm is not None:
            _set_layer_norm(part.layer_norm, module.final_layer_norm)
    _set_linear(spec.decoder.projection, model.log_softmax.mlp.layer0)
    spec.decoder.projection.bias[model.decoder_tokenizer.vocab_size :] = NEVER
    _set_vocabularies(spec, model)
    spec.validate()
    spec.optimize(quantization)
    spec.save(str(directory))


def _layers_spec(kind: type, module: nn.Module, config: DictConfig):
    blocks = module.layers
    return kind(
        len(blocks),
        blocks[0].first_sub_layer.num_attention_heads,
        pre_norm=blocks[0].pre_ln,
        activation=_ACTIVATIONS[value_of(config, "hidden_act", "relu")],
        layernorm_embedding=True,
        no_final_norm=module.final_layer_norm is None,
    )


def _array(*tensors: Tensor) -> np.ndarray:
    """Return the rows of all tensors in a new float32 array: CTranslate2 quantizes its arrays in place."""
    return np.concatenate([tensor.detach().cpu().float().numpy() for tensor in tensors])


def _set_linear(spec: common_spec.LinearSpec, *layers: nn.Linear) -> None:
    """Set one layer, or several of the same input side by side."""
    spec.weight = _array(*(layer.weight for layer in layers))
    spec.bias = _array(*(layer.bias for layer in layers))


def _set_layer_norm(spec: common_spec.LayerNormSpec, layer: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(layer.weight), _array(layer.bias)


def _set_self_attention(spec, attention: nn.Module, layer_norm: nn.LayerNorm) -> None:
    _set_linear(spec.linear[0], attention.query_net, attention.key_net, attention.value_net)
    _set_linear(spec.linear[1], attention.out_projection)
    _set_layer_norm(spec.layer_norm, layer_norm)


def _set_cross_attention(spec, attention: nn.Module, layer_norm: nn.LayerNorm) -> None:
    _set_linear(spec.linear[0], attention.query_net)
    _set_linear(spec.linear[1], attention.key_net, attention.value_net)
    _set_linear(spec.linear[2], attention.out_projection)
    _set_layer_norm(spec.layer_norm, layer_norm)


def _set_feed_forward(spec, feed_forward: nn.Module, layer_norm: nn.LayerNorm) -> None:
    _set_linear(spec.linear_0, feed_forward.dense_in)
    _set_linear(spec.linear_1, feed_forward.dense_out)
    _set_layer_norm(spec.layer_norm, layer_norm)


def _set_embedding(part, embeddings: common_spec.EmbeddingsSpec, module: TransformerEmbedding) -> None:
    embeddings.weight = _array(module.token_embedding.weight)
    part.scale_embeddings = False
    part.position_encodings.encodings = _positions(module)
    _set_layer_norm(part.layernorm_embedding, module.layer_norm)


def _positions(module: TransformerEmbedding) -> np.ndarray:
    """Return the table of positions [T, H]; a sinusoid goes on beyond what the model was trained with."""
    table = module.position_embedding
    if not isinstance(table, FixedPositionalEncoding):
        return _array(table.weight)
    known = _array(table.pos_enc)
    if len(known) >= SHORTEST_TABLE:
        return known
    longer = FixedPositionalEncoding(known.shape[1], SHORTEST_TABLE).pos_enc
    return np.concatenate([known, _array(longer[len(known) :])])


def _set_vocabularies(spec: TransformerSpec, model: MTEncDecModel) -> None:
    source = _pieces(model.encoder_tokenizer, model.encoder.vocab_size)
    target = _pieces(model.decoder_tokenizer, model.decoder.vocab_size)
    for name in ("bos", "eos", "unk"):  # CTranslate2 has one name for both sides
        piece = target[getattr(model.decoder_tokenizer, f"{name}_id")]
        source[getattr(model.encoder_tokenizer, f"{name}_id")] = piece
        setattr(spec.config, f"{name}_token", piece)
    for side, tokens in (("source", source), ("target", target)):
        if len(set(tokens)) < len(tokens):
            twice = next(token for place, token in enumerate(tokens) if token in tokens[:place])
            raise ConversionError(
                f"the model does not convert to CTranslate2: the {side} vocabulary has the token '{twice}' twice"
            )
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.config.decoder_start_token = spec.config.bos_token
    # a language stands in front of the start token: who translates gives all three
    spec.config.add_source_bos = spec.config.add_source_eos = not language_tokens(model)
    spec.config.layer_norm_epsilon = model.decoder.embedding.layer_norm.eps


def _pieces(tokenizer, rows: int) -> list[str]:
    """Return one string for each row of the embedding, also for those that stand for no token."""
    return pieces(tokenizer) + [f"<no token {number}>" for number in range(tokenizer.vocab_size, rows)]
