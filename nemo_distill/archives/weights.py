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
"""The weights of an archive: tensors of finite numbers and nothing else, no larger than the bytes behind them."""

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor
from transformers import AutoModel

from nemo_distill.archives.reader import WEIGHTS_MEMBER
from nemo_distill.errors import ArchiveError
from nemo_distill.support.quoting import error_line, plain_text
from nemo_distill.support.torch_zip import check_torch_zip

_PICKLE_BYTES, _PICKLE_BYTES_OF_ENTRY, _MOST_PICKLE_BYTES = 256 << 10, 1 << 10, 4 << 20
"""Most bytes of the names and shapes: in any case, for each entry, and in all. A thousand tensors have some 200 KB."""
_OPERATIONS = re.compile(
    "PROTO|STOP|GLOBAL|MARK|REDUCE|BUILD|BINPERSID|EMPTY_DICT|SETITEMS?|EMPTY_TUPLE|TUPLE[123]?|(LONG_)?BIN[PG][UE]T|"
    "BINUNICODE|BININT[12]?|LONG1|NEWTRUE|NEWFALSE|NONE"
)
"""What a pickle of named tensors is made of."""
_PLAIN = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|"
    r"torch\.nn\.parameter Parameter"
)
_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_OF_NEMO = ("model_name", "pretrained", "checkpoint_file")
_LARGEST = torch.finfo(torch.float32).max
_TIED = re.compile(r"(encoder|decoder)\._embedding\.token_embedding\.weight|log_softmax\.mlp\.layer0\.weight")


def read_weights(path: str | Path, content: bytes, trust: bool = False) -> dict[str, Tensor]:
    """Read a state dict under torch's `weights_only` protection.

    Checksums are compared, which torch itself does not do; compressed entries, which torch never writes, are refused.
    So is all that torch would build but no state dict needs: a few bytes could ask it for any amount of memory.

    Args:
        path: of the archive, for messages.
        content: what `torch.save` wrote.
        trust: a class of the user's own may have buffers of whole numbers, and share tensors as it likes.

    Raises:
        ArchiveError: it is damaged, or holds anything but named tensors of finite floating-point numbers, each with
            elements of its own.
    """
    try:
        entry = check_torch_zip(io.BytesIO(content))
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            damaged = packed.testzip()
            if damaged is None:
                _check_pickle(packed.read(entry), len(packed.infolist()))
        if damaged is not None:
            raise ArchiveError(
                f"{path} is damaged: in its {WEIGHTS_MEMBER} the checksum of {plain_text(damaged)} is wrong; fetch it "
                "again"
            )
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except ArchiveError:
        raise
    except Exception as error:  # of zipfile and of torch, whatever the bytes
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        own = str(error) if type(error) is ValueError else type(error).__name__
        reason = plain_text(f"it holds {foreign[1]}" if foreign else own)
        raise ArchiveError(
            f"{path} is refused: its {WEIGHTS_MEMBER} is no file of plain tensors ({reason})"
        ) from error
    _check_tensors(path, weights, len(content), trust)
    return weights


def _check_pickle(content: bytes, entries: int) -> None:
    """Refuse a pickle that asks for anything but tensors and a dictionary of them, before any of it is built.

    Args:
        content: the pickle.
        entries: of the ZIP that it lies in, one for each storage.

    Raises:
        ValueError: as torch's unpickler words it.
    """
    if len(content) > min(_PICKLE_BYTES + entries * _PICKLE_BYTES_OF_ENTRY, _MOST_PICKLE_BYTES):
        raise ValueError("its names and shapes are too long")
    before, tuples = "", set()
    for operation, argument, _ in pickletools.genops(content):
        name = operation.name
        if not _OPERATIONS.fullmatch(name):
            raise ValueError(f"GLOBAL {name}")
        if name == "GLOBAL" and not _PLAIN.fullmatch(argument):
            raise ValueError(f"GLOBAL {argument.replace(' ', '.')[:120]}")
        if "PUT" in name and before.startswith("TUPLE"):
            tuples.add(argument)
        elif "GET" in name and argument in tuples:  # tuples of tuples, each twice: no end of elements
            raise ValueError("GLOBAL tuple")
        before = name


def _check_tensors(path: str | Path, weights: object, size: int, trust: bool) -> None:
    if not isinstance(weights, dict):
        raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} holds a {type(weights).__name__}, no state dict")
    for name, tensor in weights.items():
        if not (isinstance(name, str) and type(tensor) in (Tensor, torch.nn.Parameter)):
            raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} holds {str(name)[:80]!r}, which is no tensor")
        plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ArchiveError(f"{path} is refused: in its {WEIGHTS_MEMBER}, {name[:80]} is no plain tensor")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in weights.values()}
    if sum(storages.values()) > size:
        raise ArchiveError(f"{path} is refused: its {WEIGHTS_MEMBER} holds larger tensors than it has bytes")
    for fault in chain(() if trust else _shared_elements(weights), _wrong_numbers(weights, trust)):
        raise ArchiveError(
            f"{path} is refused: in its {WEIGHTS_MEMBER}, {fault}. Stock NeMo writes no such weights; get it from "
            "another source"
        )


def _wrong_numbers(weights: dict[str, Tensor], trust: bool) -> Iterator[str]:
    """Yield a fault for each tensor whose numbers are no weights."""
    for name, tensor in weights.items():
        if tensor.dtype not in _WEIGHTS:
            # positions that older releases of transformers kept, and NeMo drops
            if not (tensor.dtype in _COUNTERS and (trust or name.endswith(".position_ids"))):
                kind = str(tensor.dtype).removeprefix("torch.")
                yield f"{ascii(name)[:80]} is of type {kind}, no floating-point type"
        elif tensor.numel():
            # of NaN, both ends are NaN; a model holds its weights in float32
            low, high = (float(each) for each in torch.aminmax(tensor.detach()))
            if not -_LARGEST <= low <= high <= _LARGEST:
                yield f"{ascii(name)[:80]} has values that are not finite"


def _shared_elements(weights: dict[str, Tensor]) -> Iterator[str]:
    """Yield a fault for each tensor that has elements with another in common; embeddings are tied to one another."""
    places = []
    for name, tensor in weights.items():
        if tensor.numel():
            extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            if extent < tensor.numel():
                yield f"{ascii(name)[:80]} has elements in common with itself"
            start = tensor.data_ptr()
            places.append((start, start + extent * tensor.element_size(), name))
    places.sort()
    before = None
    for place in places:
        if before is not None and place[0] < before[1]:
            tied = place[:2] == before[:2] and all(_TIED.fullmatch(name) for name in (place[2], before[2]))
            if not tied:
                yield f"{ascii(place[2])[:80]} has elements in common with {ascii(before[2])[:80]}"
        before = place if before is None or place[1] > before[1] else before


def _check_hugging_face(path: str | Path, section: DictConfig, weights: dict[str, Tensor], vocabulary: int) -> None:
    """Compare every tensor that such an encoder would have with the weights; it is built without memory for any."""
    sizes = {key: value for key, value in section.items() if key not in ("library", *_OF_NEMO)}
    stem, found = "encoder._encoder.", {name: tuple(tensor.shape) for name, tensor in weights.items()}
    layers = max((sizes.get(key) or 1 for key in ("num_hidden_layers", "n_layers")), default=1)
    try:
        if layers > len(weights):
            raise ValueError(f"{layers} layers")
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            built = AutoModel.from_config(instantiate({**sizes, "vocab_size": vocabulary}))
        described = {stem + name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
        wrong = next((name for name, shape in described.items() if found.get(name) != shape), None)
    except Exception as error:  # of transformers, whatever the values
        raise ArchiveError(
            f"{path} is refused: its configuration gives no encoder of Hugging Face ({error_line(error, 200)})"
        ) from error
    if wrong is not None:
        raise ArchiveError(
            f"{path} is refused: its configuration describes an encoder of Hugging Face with {wrong} of "
            f"{described[wrong]}, which the weights in the archive do not fill"
        )


def check_sizes(path: str | Path, config: DictConfig, weights: dict[str, Tensor], vocabulary: dict[str, int]) -> None:
    """Make sure, before anything that large is built, that the configuration describes no more than the weights fill.

    Args:
        path: of the archive, for messages.
        config: the model's, whose values were checked.
        weights: its state dict, each tensor with elements of its own.
        vocabulary: number of pieces of the `encoder` and the `decoder`.

    Raises:
        ArchiveError: it does.
    """
    held = sum({tensor.data_ptr(): tensor.numel() for tensor in weights.values()}.values())
    for side in ("encoder", "decoder"):
        section = config[side]
        if section.get("library", "nemo") != "nemo":
            _check_hugging_face(path, section, weights, vocabulary.get(side, 1))
            continue
        layers = {found[1] for name in weights if (found := re.match(rf"{side}\..*\blayers\.(\d+)\.", name))}
        if section.num_layers > len(layers):
            raise ArchiveError(
                f"{path} is refused: its configuration describes {section.num_layers} layers of the {side}, and "
                f"weights of {len(layers)} are in the archive"
            )
        hidden = section.hidden_size
        rows = section.get("max_sequence_length", 512) + vocabulary.get(side, 0)
        layer = 4 * hidden * hidden + 2 * hidden * section.inner_size
        needed = [section.num_layers * layer + rows * hidden]
        for key, default, unit in (
            ("num_token_types", 2, hidden),
            ("hidden_steps", 0, hidden if section.get("arch") else 0),
            ("hidden_blocks", 0, layer if section.get("arch") in ("perceiver", "max_pool", "avg_pool") else 0),
        ):
            needed.append(section.get(key, default) * unit)
        needed.append(config.get("latent_size", 0) * hidden)
        if max(needed) > held:
            raise ArchiveError(
                f"{path} is refused: its configuration describes {side} weights of {max(needed)} numbers at least, "
                f"and {held} are in the archive"
            )
