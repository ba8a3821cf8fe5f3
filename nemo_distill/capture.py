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
"""Read what inner modules take in or give out during one forward pass."""

import difflib
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nemo_distill.errors import CaptureError

_IN_A_LAYER = re.compile(r"(?:^|\.)layers\.\d+\.")
"""Of the path of a part of a layer: attention, feed-forward, a matrix in them."""


@dataclass(frozen=True)
class CaptureSpec:
    """One tensor to capture."""

    path: str
    """Path of the module, as in `model.named_modules()`."""
    side: Literal["output", "input"] = "output"
    """The module's output, or its first positional input."""
    item: int | None = None
    """Which item of a tuple, for modules that give one; None: a tensor is given."""

    def __str__(self) -> str:
        name = self.path if self.item is None else f"{self.path}[{self.item}]"
        return name if self.side == "output" else f"input of {name}"


class ForwardCapture:
    """Context manager that holds forward hooks for exactly one forward pass.

    The hooks are removed on leaving the block, whatever happens in it. On a clean exit each capture must have fired
    exactly once; a beam search inside the block, or a forward that skips the module, is an error rather than a wrong
    tensor.

    Args:
        model: the module to look into.
        specs: what to capture, by the name it is read back under.

    Raises:
        CaptureError: a path matches no module (the message lists the nearest ones), or, on leaving the block, a
            capture did not fire exactly once, or what was captured has been written over since.

    Example:
        >>> capture = ForwardCapture(model, {"logits": CaptureSpec("log_softmax.mlp.layer0")})  # doctest: +SKIP
        >>> with capture as captured:  # doctest: +SKIP
        ...     model(src, src_mask, tgt, tgt_mask)
        >>> captured["logits"].shape  # [B, T, V]  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module, specs: Mapping[Hashable, CaptureSpec]) -> None:
        self._specs = dict(specs)
        self._modules = {name: find_module(model, spec.path) for name, spec in self._specs.items()}
        self._counts: dict[Hashable, int] = {}
        self._versions: dict[Hashable, tuple[torch.Tensor, int]] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> dict[Hashable, torch.Tensor]:
        captured: dict[Hashable, torch.Tensor] = {}  # the caller's alone: nothing is kept alive from step to step
        self._counts = dict.fromkeys(self._specs, 0)
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._make_hook(name, captured)))
        return captured

    def __exit__(self, exception_type: type | None, exception: BaseException | None, traceback: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        versions, self._versions = self._versions, {}
        if exception_type is None:
            self._check_each_fired_once()
            self._check_unchanged(versions)

    def _make_hook(self, name: Hashable, captured: dict[Hashable, torch.Tensor]):
        side, item = self._specs[name].side, self._specs[name].item

        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            self._counts[name] += 1
            if side == "input" and not inputs:
                raise CaptureError(
                    f"{self._specs[name].path} is called with keywords alone, and has no first input to capture; "
                    "capture the output of what comes before it, or the input of a module inside it"
                )
            tensor = output if side == "output" else inputs[0]
            if item is not None and isinstance(tensor, tuple | list) and item < len(tensor):
                tensor = tensor[item]
            elif item is not None:
                raise CaptureError(
                    f"{self._specs[name].path} gives a {type(tensor).__name__} without item {item}; leave out or "
                    "correct the [...] of the path under `distillation.capture`"
                )
            if not isinstance(tensor, torch.Tensor):
                raise CaptureError(
                    f"{self._specs[name]} is a {type(tensor).__name__}, no tensor; name another module under "
                    "`distillation.capture`"
                    + (", or add [0] to the path of its list for the first item" if isinstance(tensor, tuple) else "")
                )
            if side == "output" and _IN_A_LAYER.search(self._specs[name].path):
                tensor = tensor.clone()  # to which NeMo's layers add the residual in place
            elif not tensor.is_inference():
                self._versions[name] = tensor, tensor._version
            captured[name] = tensor

        return hook

    def _check_unchanged(self, versions: Mapping[Hashable, tuple[torch.Tensor, int]]) -> None:
        changed = [name for name, (tensor, version) in versions.items() if tensor._version != version]
        if changed:
            raise CaptureError(
                f"what {', '.join(str(self._specs[name]) for name in changed)} gave was written over later in the "
                "forward pass; capture another module under `distillation.capture`"
            )

    def _check_each_fired_once(self) -> None:
        wrong = [
            f"'{name}' at {self._specs[name].path} fired {count} times"
            for name, count in self._counts.items()
            if count != 1
        ]
        if wrong:
            raise CaptureError(
                f"each capture must fire exactly once in a forward pass, but {'; '.join(wrong)}. Name a module that "
                "the forward calls once, under `distillation.capture`"
            )


def find_module(model: nn.Module, path: str) -> nn.Module:
    """Return the module at `path`, as in `model.named_modules()`.

    Raises:
        CaptureError: there is none; the message lists the nearest.
    """
    modules = dict(model.named_modules())
    if path not in modules or not path:
        part = path.partition(".")[0]
        lists = [name for name in modules if name.startswith(f"{part}.") and isinstance(modules[name], nn.ModuleList)]
        close = difflib.get_close_matches(path, modules, n=3, cutoff=0.3)
        near = list(dict.fromkeys([*lists[:1], *close]))[:3] or list(modules)[1:4]
        raise CaptureError(
            f"no module '{path}' in {type(model).__name__} to capture; the nearest are {', '.join(near)}. "
            "Correct the path under `distillation.capture`"
        )
    return modules[path]


def split_item(path: str) -> tuple[str, int | None]:
    """Return a path of the configuration without its item, as in `encoder._encoder.encoder.layer[0]`, and the item."""
    found = re.fullmatch(r"(.*)\[(\d{1,4})\]", path)
    return (found[1], int(found[2])) if found else (path, None)


def layer_paths(model: nn.Module, path: str) -> list[str]:
    """Return the paths of the layers in the list of layers at `path`, in order; what is in [...] is left out.

    Raises:
        CaptureError: there is no module at `path`, or it holds no numbered modules.
    """
    path, _ = split_item(path)
    layers = find_module(model, path)
    names = [name for name, _ in layers.named_children() if name.isdigit()]
    if not names:
        raise CaptureError(
            f"{path} in {type(model).__name__} is a {type(layers).__name__}, no list of layers; name the ModuleList "
            "under `distillation.capture`"
        )
    return [f"{path}.{name}" for name in sorted(names, key=int)]
