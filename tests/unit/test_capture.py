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
"""Captures hold what one forward pass gave, once, and leave no hook behind."""

import gc
import weakref

import pytest
import torch
from torch import nn

from nemo_distill.capture import CaptureSpec, ForwardCapture
from nemo_distill.errors import CaptureError


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(4, 8)
        self.encoder = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor, passes: int = 1) -> torch.Tensor:
        x = self.embedding(x)
        for _ in range(passes):
            x = self.encoder(x)
        return self.head(x).log_softmax(-1)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_captures_outputs_and_inputs():
    model, x = Model(), torch.randn(2, 3, 4)
    capture = ForwardCapture(
        model,
        {"logits": CaptureSpec("head"), "states": CaptureSpec("head", "input"), "first": CaptureSpec("encoder.0")},
    )
    with capture as captured:
        log_probs = model(x)
    assert set(captured) == {"logits", "states", "first"}
    assert torch.equal(captured["logits"].log_softmax(-1), log_probs)
    assert torch.equal(captured["states"], model.encoder(model.embedding(x)))
    assert torch.equal(captured["first"], model.encoder[0](model.embedding(x)))


def test_captured_tensors_carry_gradients():
    model = Model()
    with ForwardCapture(model, {"logits": CaptureSpec("head")}) as captured:
        model(torch.randn(2, 4))
    captured["logits"].sum().backward()
    assert model.embedding.weight.grad.abs().sum() > 0


def test_can_be_used_again_and_gives_the_new_tensors():
    model = Model()
    capture = ForwardCapture(model, {"logits": CaptureSpec("head")})
    seen = []
    for _ in range(2):
        with capture as captured:
            model(torch.randn(2, 4))
        seen.append(captured["logits"])
    assert not torch.equal(*seen)


def test_no_hooks_are_left_whatever_happens():
    model = Model()
    capture = ForwardCapture(model, {"a": CaptureSpec("head"), "b": CaptureSpec("encoder.0", "input")})
    assert hooks(model) == 0
    with capture:
        assert hooks(model) == 2
        model(torch.randn(2, 4))
    assert hooks(model) == 0
    with pytest.raises(ZeroDivisionError), capture:
        raise ZeroDivisionError  # is not replaced by a complaint about the captures
    assert hooks(model) == 0
    with pytest.raises(CaptureError), capture:
        pass
    assert hooks(model) == 0


def test_nothing_is_kept_from_step_to_step():
    model = Model()
    capture = ForwardCapture(model, {"logits": CaptureSpec("head")})
    with capture as captured:
        model(torch.randn(2, 4))
    gone = weakref.ref(captured.pop("logits"))
    del captured
    gc.collect()
    assert gone() is None


def test_a_module_that_runs_twice_is_an_error():
    model = Model()
    with (
        pytest.raises(CaptureError, match=r"exactly once.*'state' at encoder.0 fired 2 times.*distillation.capture"),
        ForwardCapture(model, {"logits": CaptureSpec("head"), "state": CaptureSpec("encoder.0")}),
    ):
        model(torch.randn(2, 4), passes=2)


def test_a_module_that_does_not_run_is_an_error():
    model = Model()
    with (
        pytest.raises(CaptureError, match=r"'state' at encoder.0 fired 0 times"),
        ForwardCapture(model, {"logits": CaptureSpec("head"), "state": CaptureSpec("encoder.0")}),
    ):
        model(torch.randn(2, 4), passes=0)


@pytest.mark.parametrize("path", ["encodr.0", "head.layer0", "log_softmax", ""])
def test_a_path_that_matches_nothing_lists_the_nearest(path):
    with pytest.raises(CaptureError, match=f"no module '{path}' in Model to capture; the nearest are ") as error:
        ForwardCapture(Model(), {"logits": CaptureSpec(path)})
    nearest = str(error.value).split("nearest are ")[1].split(". Correct")[0].split(", ")
    assert set(nearest) <= {name for name, _ in Model().named_modules()}
    if path == "encodr.0":
        assert nearest[0] == "encoder.0"


class Block(nn.Module):
    """As NeMo's: what a part gives gets the residual in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"part": nn.Linear(4, 4)})])
        self.after = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layers[0]["part"](x)
        out += x
        out = self.after(out)
        out += 1
        return out


def test_what_a_part_of_a_layer_gave_is_captured_before_the_residual_is_added():
    model, x = Block(), torch.randn(2, 4)
    with ForwardCapture(model, {"part": CaptureSpec("layers.0.part")}) as captured:
        model(x).sum().backward()
    assert torch.equal(captured["part"], model.layers[0]["part"](x))


def test_what_is_written_over_elsewhere_is_refused():
    model = Block()
    capture = ForwardCapture(model, {"after": CaptureSpec("after")})
    with pytest.raises(CaptureError, match="what after gave was written over later in the forward pass"), capture:
        model(torch.randn(2, 4))


def test_a_module_called_with_keywords_alone_has_no_input():
    class Caller(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x=x)

    model = Caller()
    capture = ForwardCapture(model, {"inner": CaptureSpec("inner", "input")})
    with pytest.raises(CaptureError, match="inner is called with keywords alone, and has no first input"), capture:
        model(torch.randn(2, 4))
