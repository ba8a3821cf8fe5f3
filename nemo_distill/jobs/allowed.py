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
"""What a recipe may ask for: names, options and overrides from lists. Where things go, the job alone decides.

A recipe that came from elsewhere can make models large and runs long; it can neither run code nor write outside of the
job's directory.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException

from nemo_distill.config.reading import nearest
from nemo_distill.errors import InputError
from nemo_distill.support.quoting import error_line, is_legible

NAME = r"\w[\w.@+=-]{0,59}"
"""Of a run, of labels, of a cache: each becomes the name of a directory and of a model in the report."""
LANGUAGE = r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}"
"""Of a language: the suffix of the corpus's files."""
TEST_SET = r"[\w@+=][\w@+=-]{0,59}"
"""Of a test set."""
CONFIG = r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}"
"""Of a file in configs/model and the like."""

SELECTION = {"--select", "--target", "--bleu-tokenizer", "--max-length-ratio", "--max-repeats", "--max-repeated"}
SELECTION |= {
    "--keep",
    "--min-score",
    "--keep-copies",
    "--ignore-placeholders",
    "--keep-unknown",
    "--keep-cut",
    "--drop-duplicates",
    "--ngram",
    "--compress",
    "--lines-per-file",
}
LABELS = {
    "--disturb",
    "--search",
    "--beam-size",
    "--num-hypotheses",
    "--length-penalty",
    "--max-length-delta",
    "--top-k",
    "--top-p",
}
LABELS |= {"--temperature", "--seed", "--engine", "--quantization", "--batch-tokens", "--shard-lines", "--device"}
LABELS |= SELECTION
CACHES = {
    "--top-k",
    "--sampled",
    "--temperatures",
    "--max-seq-length",
    "--precision",
    "--shard-tokens",
    "--batch-tokens",
}
CACHES |= {"--device"}
GOLD = "{gold}"

_GROUPS = ("model", "data", "trainer", "distillation")
_SET_BY_JOB = {"data", "data.dir", "data.source", "data.target", "data.tokenizer"}
_SET_BY_JOB |= {"trainer.max_steps", "trainer.val_check_interval", "model"}
_TOP_NUMBERS = {"average", "patience", "ema"}
_PRECISIONS = ["16", "32", "64", "bf16", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32-true", "64-true"]
_PLAIN = {
    "keep": ("best", "last", "average"),
    "on_non_finite": ("stop", "skip"),
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda"),
    "trainer.check_val_every_n_epoch": (None,),  # validations of a job are counted in steps
    "trainer.precision": (16, 32, 64, *_PRECISIONS),
    "trainer.gradient_clip_algorithm": (None, "norm", "value"),
}
"""Keys with all the values that they take."""
_TEXT_KEYS = (
    "tokens_in_batch|clean|(max|min)_seq_length|max_seq_length_(diff|ratio)|shuffle|num_samples|drop_last|pin_memory|"
    "num_workers"
)
_SIDE_KEYS = (
    "hidden_size|num_layers|inner_size|num_attention_heads|max_sequence_length|num_token_types|embedding_dropout|"
    "learn_positional_encodings|ffn_dropout|attn_score_dropout|attn_layer_dropout|hidden_act|mask_future|pre_ln|"
    "pre_ln_final_layer_norm"
)
_SETTABLE = {
    "data": "tokens_in_batch|max_seq_length|num_workers|tokenizer_library|processing|processed",
    "trainer": (
        "accelerator|devices|precision|gradient_clip_val|gradient_clip_algorithm|accumulate_grad_batches|"
        "log_every_n_steps|check_val_every_n_epoch|num_sanity_val_steps|limit_(train|val)_batches|max_epochs|min_steps|"
        "enable_progress_bar|enable_model_summary|deterministic|benchmark|sync_batchnorm"
    ),
    "exp_manager": (
        "max_time_per_run|create_tensorboard_logger|log_step_timing|"
        r"checkpoint_callback_params\.(monitor|mode|save_top_k|last_every_n_steps|last_every_minutes)"
    ),
    "model": (
        "(src|tgt)_language|shared_embeddings|label_smoothing|beam_size|len_pen|max_generation_delta|"
        rf"find_unused_parameters|(train|validation|test)_ds\.({_TEXT_KEYS})|(encoder|decoder)\.({_SIDE_KEYS})|"
        r"(encoder|decoder)_tokenizer\.bpe_dropout|"
        r"head\.(num_layers|activation|log_softmax|dropout|use_transformer_init)|"
        r"optim\.(name|lr|betas|eps|weight_decay|momentum|amsgrad)|"
        r"optim\.sched(\.(name|min_lr|last_epoch|(warmup|hold|constant|max)_steps|(warmup|hold|constant)_ratio|power))?|"
        r"distillation\..+"
    ),
}
"""Keys of NeMo's and Lightning's sections that say how a model is trained, and name no file."""
_NUMBERS = (
    (
        r"(data|model\.\w+_ds)\.(tokens_in_batch|max_seq_length)|model\.beam_size|average|patience|"
        r"model\.(encoder|decoder)\.(hidden_size|num_layers|inner_size|num_attention_heads|max_sequence_length)|"
        r"trainer\.accumulate_grad_batches",
        "a whole number, at least 1",
        lambda value: value >= 1 and value == int(value),
    ),
    (
        r"model\.\w+_ds\.min_seq_length|model\.optim\.sched\.(warmup|hold|constant)_steps|trainer\.log_every_n_steps",
        "a whole number, at least 0",
        lambda value: value >= 0 and value == int(value),
    ),
    (r"model\.optim\.(lr|eps)", "a number above 0", lambda value: value > 0),
    (r"ema", "a number above 0 and below 1", lambda value: 0 < value < 1),
    (r"model\.label_smoothing", "a number from 0 to below 1", lambda value: 0 <= value < 1),
    (
        r"model\.((encoder|decoder)\.(embedding|ffn|attn_score|attn_layer)_dropout|head\.dropout)|"
        r"model\.(encoder|decoder)_tokenizer\.bpe_dropout|model\.optim\.sched\.(warmup|hold|constant)_ratio",
        "a number from 0 to 1",
        lambda value: 0 <= value <= 1,
    ),
    (
        r"model\.optim\.(weight_decay|momentum|sched\.min_lr)|trainer\.gradient_clip_val",
        "a number, at least 0",
        lambda value: value >= 0,
    ),
)
"""Keys with the numbers that they take: any other a training would refuse, but when its turn comes."""
_MOST_PROCESSES = 64
_RUNNABLE = {"cls", "params", "target", "trust_archive", "library", "pretrained", "checkpoint_file", "language_model"}
_FILES = {"model_path", "cache", "from_nemo", "source", "target", "directory", "metadata_file", "tar_files"}
_FILES |= {"model_name"}  # which is downloaded
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]{0,99}|-?\d[\d.e+-]*")
_REFERENCE = re.compile(r"\$\{\w+(\.\w+)*\}")
_FILE_REFERENCE = re.compile(r"\$\{(teacher|pseudo|cache|data\.dir)\}")
_CORPUS_FILE = re.compile(r"\$\{data\.dir\}/\w+\.\$\{data\.(source|target)\}")
_SAFE = re.compile(r"[A-Za-z0-9_.@+/-]+")
_READ_AS_OTHER = re.compile(r"(?i)null|true|false|[-+]?(nan|inf|[\d_.]+(e[-+]?\d+)?)")


def name_faults(names: Collection[Any], where: str, pattern: str = NAME) -> list[str]:
    """Return a fault for each name that the pattern does not fit."""
    others = "any of . _ @ + = -" if pattern == NAME else "_ or -"
    return [
        f"{where}: got {_shown(name)}; give letters, digits and {others}"
        for name in names
        if not (isinstance(name, str) and re.fullmatch(pattern, name))
    ]


def path_faults(paths: Collection[Any], where: str) -> list[str]:
    """Return a fault for each path that could not be handed to a verb or a training as it is."""
    return [
        f"{where}: got {_shown(path)}; give a path that has no ':' or '${{' and does not begin with '-'"
        for path in paths
        if not (isinstance(path, str) and path and _printable(path))
        or (":" in path or "${" in path or path.startswith("-"))
    ]


def language_faults(name: Any, where: str) -> list[str]:
    """Return a fault where something is no name of a language."""
    return name_faults([name], where, LANGUAGE)


def config_faults(name: Any, where: str) -> list[str]:
    """Return a fault where something is no name of a file in configs/model."""
    return name_faults([name], where, CONFIG)


def seed_faults(seeds: Any, where: str) -> list[str]:
    """Return a fault where seeds are no different whole numbers."""
    if not isinstance(seeds, list) or not seeds:
        return [f"{where}: is empty; give at least one seed"]
    good = all(isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 1 << 32 for seed in seeds)
    if not good or len(set(seeds)) != len(seeds):
        return [f"{where}: got {_shown(seeds)}; give different whole numbers from 0 to {(1 << 32) - 1}"]
    return []


def option_faults(options: Any, known: Collection[str], where: str) -> list[str]:
    """Return a fault for each option of a verb that is not among the known ones.

    Args:
        options: as in the recipe: options and their values.
        known: names of options, in full.
        where: key in the recipe.
    """
    faults = []
    last, count = "", 0  # the option that values belong to, and how many it has
    for option in options:
        text = str(option)
        is_number = re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) is not None
        is_option = text.startswith("-") and not is_number
        last, count = (text, 0) if is_option else (last, count + 1)
        if not isinstance(option, str | int | float) or isinstance(option, bool) or not _printable(text):
            faults.append(f"{where}: got {_shown(option)}; give text or a number")
        elif is_option and text not in known:
            faults.append(
                f"{where}: {_shown(option)} is no option that a recipe may give; it may give "
                f"{', '.join(sorted(known))}"
            )
        elif last == "--target" and not is_option and text != GOLD:
            faults.append(f"{where}: --target is {_shown(option)}; a recipe may give {GOLD} alone")
        elif not is_option and (not last or (count > 1 and not is_number)):
            faults.append(f"{where}: {_shown(option)} is one value too many")
        elif not is_option and text != GOLD and not _WORD.fullmatch(text):
            faults.append(f"{where}: {_shown(option)} is no name and no number")
    return faults


def override_faults(overrides: Any, where: str, fixed: Mapping[str, str] | None = None) -> list[str]:
    """Return a fault for each override of a training that a recipe may not give.

    Args:
        overrides: in hydra's words, such as `distillation=hinton`.
        where: key in the recipe.
        fixed: further keys that may not be given here, and why, with what to give in their place.
    """
    faults = []
    for override in overrides:
        if not isinstance(override, str) or not _printable(override):
            faults.append(f"{where}: got {_shown(override)}; give overrides such as distillation=hinton")
            continue
        try:
            parsed = OverridesParser.create().parse_override(override)
            value = None if parsed.is_delete() else parsed.value()
        except (HydraException, OverrideParseException, RecursionError, ValueError) as error:
            faults.append(f"{where}: {_shown(override)} is no override ({error_line(error, 200)})")
            continue
        if parsed.package is not None or parsed.is_sweep_override():
            faults.append(f"{where}: {_shown(override)}: give one value for one key")
            continue
        reasons = (_fault_of(key, item, fixed or {}) for key, item in _leaves(parsed.key_or_group, value))
        faults += [f"{where}: {_shown(override)} {reason}" for reason in reasons if reason is not None][:1]
    return faults


def keys_of(overrides: Collection[Any]) -> set[str]:
    """Return the dotted keys that overrides without faults set or remove.

    Example:
        >>> sorted(keys_of(["model.encoder={pre_ln: true}", "++seed=1"]))
        ['model.encoder.pre_ln', 'seed']
    """
    return set(values_of(overrides))


def values_of(overrides: Collection[Any]) -> dict[str, Any]:
    """Return the dotted keys that overrides without faults set or remove, with the last value of each.

    Example:
        >>> values_of(["model.encoder={pre_ln: true}", "seed=1", "~seed"])
        {'model.encoder.pre_ln': True, 'seed': None}
    """
    parsed = [OverridesParser.create().parse_override(str(each)) for each in overrides]
    return {
        key: value
        for each in parsed
        for key, value in _leaves(each.key_or_group, None if each.is_delete() else each.value())
    }


def setting(key: str, value: Any) -> str:
    """Return an override with a value as it is, whatever its characters: a path, or what an archive says.

    Raises:
        InputError: the value has an interpolation, which no quoting keeps from being resolved.

    Example:
        >>> setting("data.dir", "my corpus, 2nd"), setting("data.dir", "data/ui")
        ("data.dir='my corpus, 2nd'", 'data.dir=data/ui')
    """
    return f"{key}={_quoted(value, key)}"


def _quoted(value: Any, key: str) -> str:
    if value is None or isinstance(value, bool | int | float):
        return {None: "null", True: "true", False: "false"}[value] if not _is_number(value) else str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_quoted(item, key) for item in value)}]"
    text = str(value)
    if "${" in text or not _printable(text):
        raise InputError(f"{key}: {_shown(text)} cannot be given to a training; rename it")
    if _SAFE.fullmatch(text) and not _READ_AS_OTHER.fullmatch(text):
        return text
    return QuotedString(text, Quote.single).with_quotes()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys in an override with their values; of lists the items."""
    if isinstance(value, Mapping) and value:
        for inner, item in value.items():
            yield from _leaves(f"{key}.{inner}", item)
    elif isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        for item in value:
            yield from _leaves(key, item)
    else:
        yield key, value


def _fault_of(key: str, value: Any, fixed: Mapping[str, str]) -> str | None:
    """Return why a recipe may not give a key this value."""
    root, _, rest = key.partition(".")
    if key in _SET_BY_JOB or key in fixed:
        return fixed.get(key, "is set by the job")
    if key == "seed":
        return None if not seed_faults([value], "") else f"is no whole number from 0 to {(1 << 32) - 1}"
    if key in _PLAIN:
        served = dict.fromkeys("null" if each is None else str(each) for each in _PLAIN[key])
        return None if value in _PLAIN[key] else f"is not {' or '.join(served)}"
    if key in _TOP_NUMBERS:
        return _number_fault(key, [value])
    if key in _GROUPS and value is not None:
        return None if isinstance(value, str) and re.fullmatch(CONFIG, value) else "names no file of configs/"
    if root not in _SETTABLE:
        return (
            f"cannot be set in a recipe; it sets {', '.join(f'{each}.*' for each in _SETTABLE)}, keep, seed and such"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.\[\]-]+", key) or not re.fullmatch(_SETTABLE[root], rest):
        known = re.findall("[a-z_]{3,}", _SETTABLE[root])
        return f"cannot be set in a recipe{nearest(rest, known)}; nemo_distill/jobs/allowed.py lists what can"
    parts = re.split(r"[.\[\]]+", key)
    in_component = ".components." in key
    runnable = [part for part in parts if part in _RUNNABLE or (part.startswith("_") and part.endswith("_"))]
    if runnable and not (runnable == ["target"] and in_component):
        return f"has {runnable[0]}, which can run code"
    values = value if isinstance(value, list) else [value]
    if parts[-1] in ("num_workers", "devices"):
        good = all(each == "auto" or (_is_number(each) and each <= _MOST_PROCESSES) for each in values)
        return None if good and len(values) <= _MOST_PROCESSES else f"is no number of at most {_MOST_PROCESSES}"
    if (fault := _number_fault(key, values)) is not None:
        return fault
    if not all(_serves(each, file=parts[-1] in _FILES) for each in values):
        return "has a value that is no number, name or ${key}" + (", such as ${teacher}" * (parts[-1] in _FILES))
    return None


def _number_fault(key: str, values: list) -> str | None:
    """Return why a key of `_NUMBERS` cannot have these values. None and another key's value serve."""
    for pattern, wanted, serves in _NUMBERS:
        if re.fullmatch(pattern, key):
            given = [each for each in values if not (each is None or _REFERENCE.fullmatch(str(each)))]
            good = all(_is_number(each) and math.isfinite(each) and serves(each) for each in given)
            return None if good else f"is not {wanted}"
    return None


def _serves(value: Any, file: bool) -> bool:
    """Return whether a recipe may give a value: a number, a word, another key's value; for files what the job has."""
    if value is None or isinstance(value, bool) or (_is_number(value) and math.isfinite(value)):
        return True
    if not isinstance(value, str):
        return value == {}
    if file:
        return bool(_FILE_REFERENCE.fullmatch(value) or _CORPUS_FILE.fullmatch(value))
    return bool(_WORD.fullmatch(value) or _REFERENCE.fullmatch(value))


def _printable(text: str) -> bool:
    return is_legible(text) and len(text) <= 4096


def _shown(value: Any) -> str:
    shown = ascii(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return shown if len(shown) <= 120 else f"{shown[:120]}..."
