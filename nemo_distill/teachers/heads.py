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
"""NeMo's output head, and how to run a model without it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from inspect import getattr_static

from nemo.collections.common.parts import MultiLayerPerceptron
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.collections.nlp.modules.common import TokenClassifier
from torch import nn

from nemo_distill.capture import CaptureSpec
from nemo_distill.data.encoders import target_log_probs
from nemo_distill.losses.signals import HeadInput


def linear_head(model: nn.Module, logits_path: str) -> nn.Linear | None:
    """Return the layer that alone turns a model's last decoder states into logits, or None.

    That is the head of a stock `MTEncDecModel` or `MTBottleneckModel`. A model with a `forward` or a head of its own,
    more than one layer in the head, or hooks on the model or its head, may do anything with the logits: for those the
    answer is None.
    """
    head = getattr(model, "log_softmax", None)
    stock_forwards = [getattr_static(kind, "forward") for kind in (MTEncDecModel, MTBottleneckModel)]
    own_forward = getattr_static(type(model), "forward") not in stock_forwards
    if own_forward or type(head) is not TokenClassifier:
        return None
    layer = getattr(head.mlp, "layer0", None)
    if head.mlp.layers != 1 or type(layer) is not nn.Linear or model.get_submodule(logits_path) is not layer:
        return None
    changed = (
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        for module in (model, head, head.mlp, layer)
    )
    return None if any(changed) else layer


def is_of_head(spec: CaptureSpec) -> bool:
    """Return whether a tensor is another where a model runs without its head: it leaves the head, or the model."""
    return spec.side == "output" and (spec.path in ("", "log_softmax") or spec.path.startswith("log_softmax."))


@contextmanager
def without_log_softmax(model: nn.Module) -> Iterator[None]:
    """NeMo's head stops at the logits for the length of the block."""
    perceptron = getattr(getattr(model, "log_softmax", None), "mlp", None)
    if not isinstance(perceptron, MultiLayerPerceptron):
        yield
        return
    before, perceptron.log_softmax = perceptron.log_softmax, False
    try:
        yield
    finally:
        perceptron.log_softmax = before


@contextmanager
def without_head(model: nn.Module, head: nn.Linear) -> Iterator[None]:
    """The model's forward gives its last decoder states, [B, T, H], for the length of the block."""
    with ExitStack() as stack:
        stack.enter_context(without_log_softmax(model))
        head.forward = lambda states: states
        stack.callback(delattr, head, "forward")
        yield


def head_input(model: nn.Module, head: nn.Linear, *inputs) -> HeadInput:
    """Run a model's forward without its head; return the states that would enter it, and the head."""
    with without_head(model, head):
        return HeadInput(target_log_probs(model(*inputs)), head.weight, head.bias)
