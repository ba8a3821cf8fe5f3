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
"""The weights of an archive: tensors and nothing else, no larger than the bytes behind them."""

import io
import re
import zipfile
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from nemo_distill.archives.reader import WEIGHTS_MEMBER
from nemo_distill.errors import ArchiveError


def read_weights(path: str | Path, content: bytes) -> dict[str, Tensor]:
    """Read a state dict under torch's `weights_only` protection.

    Checksums are compared, which torch itself does not do; compressed entries, which torch never writes, are refused.

    Args:
        path: of the archive, for messages.
        content: what `torch.save` wrote.

    Raises:
        ArchiveError: it is damaged, or holds anything but named tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            entries = packed.infolist()
            if len({entry.filename for entry in entries}) != len(entries):
                raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} holds an entry twice")
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not stored or sum(entry.file_size for entry in entries) > len(content):
                raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} is compressed, as torch never writes it")
            damaged = packed.testzip()
        if damaged is not None:
            raise ArchiveError(
                f"{path} is damaged: in its {WEIGHTS_MEMBER} the checksum of {damaged} is wrong; fetch it again"
            )
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except ArchiveError:
        raise
    except Exception as error:  # of zipfile and of torch, whatever the bytes
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {foreign[1]}" if foreign else type(error).__name__
        raise ArchiveError(
            f"{path} is refused: its {WEIGHTS_MEMBER} is no file of plain tensors ({reason})"
        ) from error
    _check_tensors(path, weights)
    return weights


def _check_tensors(path: str | Path, weights: object) -> None:
    if not isinstance(weights, dict):
        raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} holds a {type(weights).__name__}, no state dict")
    for name, tensor in weights.items():
        if not (isinstance(name, str) and type(tensor) in (Tensor, torch.nn.Parameter)):
            raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} holds {str(name)[:80]!r}, which is no tensor")
        plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ArchiveError(f"{path} is refused: in its {WEIGHTS_MEMBER}, {name[:80]} is no plain tensor")


def check_sizes(path: str | Path, config: DictConfig, weights: dict[str, Tensor], vocabulary: dict[str, int]) -> None:
    """Make sure, before anything that large is built, that the configuration describes no more than the weights fill.

    Args:
        path: of the archive, for messages.
        config: the model's.
        weights: its state dict.
        vocabulary: number of pieces of the `encoder` and the `decoder`.

    Raises:
        ArchiveError: it does, or a size is no whole number above 0.
    """
    held = sum(tensor.numel() for tensor in weights.values())
    for side in ("encoder", "decoder"):
        sizes = {"hidden_size": None, "inner_size": None, "num_layers": None, "max_sequence_length": 512}
        for key, default in sizes.items():
            value = sizes[key] = OmegaConf.select(config, f"{side}.{key}", default=default)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 40:
                raise ArchiveError(
                    f"{path} could not be opened as a translation model: {side}.{key} is {str(value)[:80]!r}; a "
                    "whole number above 0 is needed"
                )
        hidden, rows = sizes["hidden_size"], sizes["max_sequence_length"] + vocabulary.get(side, 0)
        layer = 4 * hidden * hidden + 2 * hidden * sizes["inner_size"]
        needed = sizes["num_layers"] * layer + rows * hidden
        for key, unit in (("num_token_types", hidden), ("hidden_steps", hidden), ("hidden_blocks", layer)):
            value = OmegaConf.select(config, f"{side}.{key}", default=0)
            needed = max(needed, value * unit if isinstance(value, int) else 0)
        latent = config.get("latent_size")
        needed = max(needed, latent * hidden if isinstance(latent, int) else 0)
        if needed > held:
            raise ArchiveError(
                f"{path} is refused: its configuration describes {side} weights of {needed} numbers at least, and "
                f"{held} are in the archive"
            )
