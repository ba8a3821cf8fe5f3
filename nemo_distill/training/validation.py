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
"""Validation scores that are what they are called, on any number of processes.

NeMo 1.23 weighs the loss of a batch by its padded size, counts twice what the sampler repeats so that all processes
have equally many batches, and fails on a set without a batch. Here `val_loss` is the mean over all real target tokens
of a set, and `val_sacreBLEU` the corpus BLEU of all its hypotheses, each counted once.

On a CPU CTranslate2 finds these hypotheses, of all sentences at the end, by the search that the model asks for: NeMo's
modules take four times as long, often longer than the training between two validations.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from nemo.collections.common.losses import NLLLoss
from nemo.collections.nlp.data.machine_translation.machine_translation_dataset import TranslationDataset
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from omegaconf import ListConfig
from sacrebleu.metrics import BLEU
from torch.utils.data import DistributedSampler

from nemo_distill.data.bleu_tokenizer import build_bleu, choose_bleu_tokenizer, tokenizer_of_language
from nemo_distill.data.encoders import is_latent, longest_source, mean_latent, target_log_probs
from nemo_distill.data.samples import unknown_text
from nemo_distill.decoding.conversion import SHORTEST_TABLE, conversion_faults
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.search import BatchIndependentBeamSearch
from nemo_distill.errors import InputError, StorageError
from nemo_distill.support.text_files import iterate_lines
from nemo_distill.support.threads import available_threads
from nemo_distill.support.warned import warn
from nemo_distill.training.multilingual import sets_of
from nemo_distill.training.ranks import gather

_SECTIONS = {"val": "validation_ds", "test": "test_ds"}
_EXAMPLES = 3
_MUCH_UNKNOWN = 0.005  # of the tokens of references, which then differ from the text


class _Part(NamedTuple):
    """What one process found in one set."""

    loss_sum: float
    tokens: int
    pairs: list[tuple[str, str]]
    """Hypothesis and reference of each sentence that has a reference."""


class _Untranslated(dict):
    """What `eval_step` returns where the translating is left to the end of the epoch.

    Who reads `translations` before, a validation step or callback of the user's own, has them from NeMo's modules.
    """

    def __init__(self, values: Mapping[str, Any], translate: Callable[[], list[str]]) -> None:
        super().__init__(values)
        self._translate_now = translate

    def __missing__(self, key: str) -> list[str]:
        if key != "translations":
            raise KeyError(key)
        self[key] = self._translate_now()
        return self[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self or key == "translations" else default


def name_bleu_tokenizers(config: Mapping[str, Any]) -> None:
    """Put the BLEU tokenizer of a run's data into its validation sets, in place, where they name none.

    That is `data.bleu_tokenizer`, else that of the model's target language, else that of `data.target`. Where
    sacreBLEU has none of its own for that language, the script of the references tells.

    Args:
        config: of a run, with the section `model`, and `data`, it may be.
    """
    data = config["data"] if isinstance(config.get("data"), Mapping) else {}
    languages = (config["model"].get("tgt_language"), data.get("target"))
    language = next((each for each in languages if isinstance(each, str) and each not in ("", "ignore")), None)
    tokenizer = data.get("bleu_tokenizer") or tokenizer_of_language(language)
    for name in _SECTIONS.values():
        section = config["model"].get(name)
        if tokenizer and isinstance(section, dict) and section.get("bleu_tokenizer") is None:
            section["bleu_tokenizer"] = tokenizer


def check_validation_sets(model: MTEncDecModel) -> None:
    """Make sure that every validation set still has sentences after cleaning, or training would end without a score.

    Raises:
        InputError: a set has none, or sacreBLEU has not the tokenizer that its language needs.
    """
    for number, dataset in enumerate(getattr(model, "_validation_ds", None) or ()):
        if isinstance(getattr(dataset, "dataset_tgt", None), str):
            _bleu(model, "val", number, iterate_lines(dataset.dataset_tgt), f"validation set {number}")
        if len(dataset) == 0:
            raise InputError(
                f"model.validation_ds: no sentence pair of {dataset.dataset_src} is left; leave it out, or look at "
                "validation_ds.clean and validation_ds.max_seq_length"
            )
        if 0 < (count := _batches_read(getattr(model, "_trainer", None), dataset)) < len(dataset):
            warn(
                f"validation set {number}: trainer.limit_val_batches leaves {count} of its {len(dataset)} batches, "
                "which are in the order of their lengths: the shortest sentences are scored. Give a smaller file"
            )
        if (share := _unknown_share(dataset, getattr(model.decoder_tokenizer, "unk_id", None))) > _MUCH_UNKNOWN:
            warn(
                f"validation set {number}: {100 * share:.1f} % of its target tokens are unknown to the tokenizer. "
                "Read back from tokens, as here, references lack them, so that val_sacreBLEU is higher than what "
                "evaluate says of the text; no model of this tokenizer writes them (tokenizer --coverage)"
            )


def warn_of_unknown_text(model: MTEncDecModel) -> None:
    """Tell of training text of which the model's tokenizers do not know many tokens; that of a student with a teacher
    is looked at as it begins to learn from it.
    """
    if getattr(model, "_teacher", None) is not None:
        return
    unknown = tuple(getattr(each, "unk_id", None) for each in (model.encoder_tokenizer, model.decoder_tokenizer))
    for told in unknown_text(getattr(model, "_train_ds", None), unknown):
        warn(f"{told} helps")


def _batches_read(trainer: Any, dataset: Any) -> int:
    """Return how many batches of a set all processes of Lightning read together, each as many as the limit says.

    Those of its short look before training do not count.
    """
    limit, processes = getattr(trainer, "limit_val_batches", 1.0), getattr(trainer, "world_size", 1)
    own = -(-len(dataset) // processes)
    return min(processes * (min(limit, own) if isinstance(limit, int) else int(limit * own)), len(dataset))


def _unknown_share(dataset: Any, unknown: int | None) -> float:
    """Return the share of a set's target tokens that are the unknown one; 0 of a set that is not read as lines."""
    if unknown is None or not isinstance(dataset, TranslationDataset):
        return 0.0
    labels = [dataset[number][4] for number in range(len(dataset))]
    found, padding = (sum(int((each == id_).sum()) for each in labels) for id_ in (unknown, dataset.tgt_pad_id))
    return found / max(sum(each.size for each in labels) - padding, 1)


def check_monitor(model: MTEncDecModel, monitor: str | None) -> None:
    """Make sure that the score by which checkpoints are kept is one that the run logs.

    Those of training are left to Lightning: an objective may log any. So is a model class with a validation of its
    own.

    Raises:
        InputError: it is not.
    """
    if (
        monitor is None
        or monitor.startswith("train_")
        or getattr(model.eval_epoch_end, "__func__", 0) != eval_epoch_end
    ):
        return
    count = max(len(getattr(model, "_validation_ds", None) or ()), 1)
    known = [f"val_{key}" for key in ("loss", "sacreBLEU")]
    known += [f"{name}_dl_index_{number}" for number in range(1, count) for name in known[:2]]
    known += [f"{name}_avg" for name in known[:2]] if count > 1 else []
    languages = dict.fromkeys(language for language, _ in sets_of(model, "validation_ds").values())
    known += [f"{name}_{language}" for language in languages for name in known[:2]]
    if monitor not in (*known, "lr"):
        raise InputError(
            f"exp_manager.checkpoint_callback_params.monitor: got {ascii(monitor)[:80]}; give one of "
            f"{', '.join(known)}, or a loss of the training, such as train_loss"
        )


def eval_step(model: MTEncDecModel, batch: list[torch.Tensor], batch_idx: int, mode: str, dataloader_idx: int = 0):
    """Score and translate one batch; takes the place of NeMo's method of this name, and returns what it does.

    Where a trainer evaluates and CTranslate2 can, the translating is left to `eval_epoch_end`, or to whoever reads the
    `translations` first.

    Of a bottleneck model the loss is the negative log-likelihood at the mean of the latent variable: comparable with
    that of any other model, and the same each time.

    Returns:
        `inputs`, `translations` and `ground_truths`, lists of texts; `tokens`, the number of real target tokens, and
        `loss_sum`, the sum of their losses. Where the translating is left, also `sources`, lists of token ids.
    """
    source, source_mask, target, target_mask, labels = (item.squeeze(0) if item.ndim == 3 else item for item in batch)
    if model.multilingual:
        _, direction = sets_of(model, _SECTIONS[mode])[dataloader_idx]
        model.source_processor, model.target_processor = direction.source_processor, direction.target_processor
    tokens = int((labels != model.decoder_tokenizer.pad_id).sum())
    with mean_latent(model):
        log_probs = target_log_probs(model(source, source_mask, target, target_mask))
    loss_fn = NLLLoss(ignore_index=model.decoder_tokenizer.pad_id) if is_latent(model) else model.eval_loss_fn
    mean_loss = loss_fn(log_probs=log_probs, labels=labels) if tokens else 0.0
    result = {
        "ground_truths": [_target_text(model, ids) for ids in target.cpu().numpy()],
        "num_non_pad_tokens": int(target_mask.sum()),
        "tokens": tokens,
        "loss_sum": float(mean_loss) * tokens,
    }
    if not _translates_at_end(model):
        result["inputs"], result["translations"] = model.batch_translate(src=source, src_mask=source_mask)
        return result
    reading = model.encoder_tokenizer, model.source_processor
    result["inputs"] = MTEncDecModel.ids_to_postprocessed_text(source, *reading, filter_beam_ids=False)
    rows = zip(source.tolist(), source_mask.bool().tolist(), strict=True)
    result["sources"] = [list(itertools.compress(ids, mask)) for ids, mask in rows]
    return _Untranslated(result, lambda: model.batch_translate(src=source, src_mask=source_mask)[1])


def eval_epoch_end(model: MTEncDecModel, outputs: list, mode: str, global_rank: int) -> None:
    """Log loss and BLEU of every set, over all processes; takes the place of NeMo's method of this name.

    A set without a token has no loss, one without a reference no BLEU: none is logged, the averages leave it out, and
    a warning says so. A multilingual model logs each language by its name too, `val_sacreBLEU_de`: the mean over its
    sets. All processes must call this together, and log the same.
    """
    sets = outputs if outputs and isinstance(outputs[0], list) else [outputs]
    loaders = model.trainer.val_dataloaders if mode == "val" else model.trainer.test_dataloaders
    loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    left = [result for results in sets for result in results if "sources" in result and "translations" not in result]
    _translate(model, left)
    own = [_own_part(results, loader) for results, loader in zip(sets, loaders, strict=True)]
    scores: dict[str, list[float]] = {"loss": [], "sacreBLEU": []}
    languages = sets_of(model, _SECTIONS[mode])
    of_languages: dict[str, list[float]] = defaultdict(list)
    for number, parts in enumerate(zip(*gather(own), strict=True)):
        language, direction = languages.get(number, (None, None))
        found = _scores(model, mode, number, parts)
        name = "validation" if mode == "val" else "test"
        name += f" set {number}" + (f" ({direction})" if direction else "")
        logging.info(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in found.items()))
        for key in scores.keys() - found.keys():
            warn(f"{name} has nothing to compute {mode}_{key} from; none is logged")
        for key, value in found.items():
            scores[key].append(value)
            if language is not None:
                of_languages[f"{mode}_{key}_{language}"].append(value)
            model.log(f"{mode}_{key}" + (f"_dl_index_{number}" if number else ""), value, sync_dist=True)
        _show_examples(sets[number])
        sets[number].clear()
    for key, values in scores.items():
        if len(sets) > 1 and values:
            model.log(f"{mode}_{key}_avg", math.fsum(values) / len(values), sync_dist=True)
    for name, values in of_languages.items():
        model.log(name, math.fsum(values) / len(values), sync_dist=True)


def _translates_at_end(model: MTEncDecModel) -> bool:
    """Return whether CTranslate2 translates for a model's validation: on a CPU, and where it decodes as NeMo does."""
    trainer = model._trainer
    return (
        trainer is not None
        and (trainer.validating or trainer.sanity_checking or trainer.testing)
        and model.device.type == "cpu"
        and not model.multilingual
        and getattr(model.batch_translate, "__func__", None) is MTEncDecModel.batch_translate
        and type(model.beam_search) is BatchIndependentBeamSearch
        and not conversion_faults(model)
    )


def _translate(model: MTEncDecModel, results: Sequence[dict]) -> None:
    """Put `translations` into results that have `sources`.

    NeMo's modules translate with weights that are not finite, which CTranslate2's ReLU takes for 0, and longer sources
    than it has positions for.

    The engine is of these weights, and closed before the processes that read data are forked: one that is freed there
    as garbage waits for its threads for ever.
    """
    ids = [source for result in results for source in result["sources"]]
    if not ids:
        return
    try:
        if not all(math.isfinite(result["loss_sum"]) for result in results):
            raise InputError("the loss is not finite, and CTranslate2 may translate well with weights that are not")
        if (longest := max(map(len, ids))) > (positions := max(longest_source(model), SHORTEST_TABLE)):
            raise InputError(f"a source has {longest} tokens, CTranslate2 {positions} positions")
        threads = max(available_threads() // model.trainer.num_devices, 1)
        engine = CTranslate2Engine.from_model(model, threads=threads)
    except (InputError, StorageError) as error:
        warn(f"NeMo's modules translate for the validation, which takes longer: {error}")
        engine = NeMoEngine(model)
    try:
        found = dict(itertools.chain.from_iterable(engine.translate_ids(ids)))
    finally:
        engine.close()
    texts = (_target_text(model, found[place][0].ids) for place in range(len(ids)))
    for result in results:
        result["translations"] = list(itertools.islice(texts, len(result["sources"])))


def _target_text(model: MTEncDecModel, ids: Iterable[int]) -> str:
    return model.target_processor.detokenize(model.decoder_tokenizer.ids_to_text(ids).split(" "))


def _own_part(results: Sequence[dict], loader) -> _Part:
    """Add up what this process found, without the batches at the end that the sampler repeats to make ends meet."""
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        results = results[: len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))]
    pairs = itertools.chain.from_iterable(
        zip(result["translations"], result["ground_truths"], strict=True) for result in results
    )
    return _Part(
        math.fsum(result["loss_sum"] for result in results),
        sum(result["tokens"] for result in results),
        [pair for pair in pairs if pair[1].strip()],
    )


def _scores(model: MTEncDecModel, mode: str, number: int, parts: Sequence[_Part]) -> dict[str, float]:
    """Return `loss` and `sacreBLEU` of a set from the parts of all processes, as far as there are any."""
    tokens = sum(part.tokens for part in parts)
    pairs = [pair for part in parts for pair in part.pairs]
    found = {"loss": math.fsum(part.loss_sum for part in parts) / tokens} if tokens else {}
    if pairs:
        hypotheses, references = zip(*pairs, strict=True)
        metric = _bleu(model, mode, number, references)
        found["sacreBLEU"] = metric.corpus_score(hypotheses, [references]).score
    return found


def _bleu(model: MTEncDecModel, mode: str, number: int, references: Iterable[str], name: str | None = None) -> BLEU:
    """Return the metric of a set: by its `bleu_tokenizer`, else the model's target language, else its script.

    The choice is logged where the set has a name.

    Raises:
        InputError: there is no such tokenizer.
    """
    option = f"model.{_SECTIONS[mode]}.bleu_tokenizer"
    asked, several = (model.cfg.get(_SECTIONS[mode]) or {}).get("bleu_tokenizer"), sets_of(model, _SECTIONS[mode])
    language = several[number][1].target if number in several else model.tgt_language
    language = language if isinstance(language, str) else None
    if isinstance(asked, list | ListConfig):
        if number >= len(asked):
            raise InputError(f"{option}: got {len(asked)} for more sets; give one, or one for each")
        asked = asked[number]
    said = f"data.bleu_tokenizer (in scripts of your own {option})"
    return build_bleu(choose_bleu_tokenizer(asked, language, references, option, name), said)


def _show_examples(results: Sequence[dict]) -> None:
    """Log the first sentences of this process; no random choice, which would shift the random state."""
    sentences = (
        zip(result["inputs"], result["translations"], result["ground_truths"], strict=True) for result in results
    )
    for texts in itertools.islice(itertools.chain.from_iterable(sentences), _EXAMPLES):
        logging.info("    source: {}\n    hypothesis: {}\n    reference: {}".format(*texts))
