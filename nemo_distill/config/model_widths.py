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
"""Widths and moments of which NeMo makes no model; told without NeMo, before a job begins."""

from collections.abc import Iterator, Mapping
from typing import Any

from nemo_distill.config.reading import inner_section
from nemo_distill.support.quoting import plain_text

DROPOUTS = ("embedding_dropout", "ffn_dropout", "attn_score_dropout", "attn_layer_dropout")
"""Keys of the dropouts of a side, of NeMo's own Transformers."""
HUGGING_FACE = "huggingface"
"""The `library` of encoders that NeMo takes from Hugging Face, whose keys are others."""


def width_faults(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault for heads that do not share a width evenly, an odd width whose positions are sines and cosines,
    sides of two widths, and moments that are not two.

    Args:
        model: the section as plain data; what is no section or number is passed over.
    """
    encoder, decoder = inner_section(model, "encoder"), inner_section(model, "decoder")
    for side, section in (("encoder", encoder), ("decoder", decoder)):
        width, heads = section.get("hidden_size"), section.get("num_attention_heads")
        if section.get("library") == HUGGING_FACE or not (type(width) is int and type(heads) is int):
            continue
        if heads < 1 or width < 1 or width % heads:
            yield (
                f"model.{side}.hidden_size: got {width} with {heads} heads (num_attention_heads), which share it "
                "evenly; give a multiple of them"
            )
        elif width % 2 and section.get("learn_positional_encodings") is not True:
            yield (
                f"model.{side}.hidden_size: got {width}, and positions are pairs of sines and cosines; give an even "
                "number, or learn_positional_encodings"
            )
    widths = encoder.get("hidden_size"), decoder.get("hidden_size")
    own = encoder.get("library") == HUGGING_FACE or encoder.get("arch")  # which have a layer between
    if all(type(each) is int for each in widths) and widths[0] != widths[1] and not own:
        yield (
            f"model.decoder.hidden_size: got {widths[1]}, and the encoder has {widths[0]}: the decoder reads what it "
            "writes; give both the same"
        )
    betas = inner_section(model, "optim").get("betas")
    if betas is not None and not (isinstance(betas, list) and len(betas) == 2):
        yield f"model.optim.betas: got {plain_text(betas, 100)}; give two, such as [0.9, 0.98]"
