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
"""Decoding through CTranslate2: several times faster than NeMo, same models, same scores."""

import contextlib
import hashlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ctranslate2
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.data.text import TextPipeline
from nemo_distill.decoding.conversion import convert
from nemo_distill.decoding.cuda_libraries import device_fault
from nemo_distill.decoding.engine import (
    SAMPLED,
    Batch,
    Hypothesis,
    SearchSettings,
    TextEngine,
    archive_settings,
    check_quantization,
)
from nemo_distill.decoding.exported_program import beam_options, equal_batches, length_penalty, side_by_side, without
from nemo_distill.errors import InputError
from nemo_distill.support.files import reported_storage
from nemo_distill.support.temporary import TEMPORARY_ADVICE, TemporaryDirectory, temporary_place
from nemo_distill.support.threads import available_threads, threads_for

_SEEDING = threading.Lock()


class CTranslate2Engine(TextEngine):
    """Translates with a converted model; see `Engine`.

    Beam search prunes by plain log-probability, as CTranslate2 does without a length penalty of its own, and the
    hypotheses it finds are ranked by NeMo's GNMT penalty. Sentences of one length share a batch, since the longest
    output is a property of the batch here but of the sentence in NeMo: so nothing depends on the batch, up to rounding
    of floating-point sums where two hypotheses are equally good.

    Sampling is the exception: the draws of a batch depend on the seed and the sentences of that batch, so that the
    same list of sentences with the same `batch_tokens` gives the same hypotheses, on any number of threads.

    Args:
        directory: a model that `convert` wrote.
        text: how the model reads and writes text.
        default_settings: beam search as the model's archive asks for it.
        longest_target: most tokens of a hypothesis.
        quantization: of the stored weights; where the device cannot compute in that type, it takes the nearest.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads; by default `available_threads`. They work on several batches at once; on a single one
            together only where that is said here or by `OMP_NUM_THREADS`, or the model is large: `threads_for`.
        check: called each time that the model was read; raises an error if its files have changed.

    Example:
        >>> engine = CTranslate2Engine.from_archive("teacher.nemo", quantization="int8")  # doctest: +SKIP
        >>> for batch in engine.translate(["Guten Tag"], SearchSettings(num_hypotheses=4)):  # doctest: +SKIP
        ...     print(batch)
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        text: TextPipeline,
        default_settings: SearchSettings,
        longest_target: int,
        quantization: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self._check = check
        self.text = text
        self.default_settings = default_settings
        self.longest_target = longest_target
        self.device = device
        self.threads = threads or available_threads()
        self._threads_of_batch = threads or threads_for(os.path.getsize(self.directory / "model.bin"))
        self.truncated: list[int] = []
        self._translator, self._workers, self._threads = None, 0, 0
        self._source, self._target_pieces = text.source_pieces(), text.target_pieces()
        if text.language_token is not None:  # start and end are given: CTranslate2 has one of each
            for mark in ("bos_id", "eos_id"):
                id_ = getattr(text.source_tokenizer, mark)
                self._source[id_] = self._target_pieces[getattr(text.target_tokenizer, mark)]
        padding = getattr(text.target_tokenizer, "pad_id", None)  # of models that are not NeMo's it is left to them
        self._padding = None if padding in (None, -1) else self._target_pieces[padding]
        self._end = self._target_pieces[text.target_tokenizer.eos_id]
        self._prefix: list[str] = []  # tokens in front of each hypothesis, whose probabilities do not count
        self._returned = 0  # of these, those that come back with a hypothesis
        self._target = {piece: id_ for id_, piece in enumerate(self._target_pieces)}
        self.name = f"ctranslate2 {quantization}"
        self._load(1)

    @classmethod
    def from_model(
        cls,
        model: MTEncDecModel,
        quantization: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
        languages: Languages | None = None,
    ) -> "CTranslate2Engine":
        """Convert a NeMo model into a temporary directory that lives as long as the engine.

        Raises:
            ConversionError: the model does not convert; the message lists all reasons.
            InputError: an unknown quantization; a model of several languages, and which one is meant is not said.
            StorageError: no room for the converted model in the directory of temporary files.
        """
        text = TextPipeline.of_model(model, languages)
        with reported_storage(temporary_place(), TEMPORARY_ADVICE), contextlib.ExitStack() as undo:
            directory = TemporaryDirectory()
            undo.callback(directory.cleanup)
            convert(model, directory.path, quantization)
            engine = cls(
                directory.path,
                text,
                archive_settings(model),
                model.decoder.max_sequence_length,
                quantization,
                device,
                threads,
            )
            undo.pop_all()
        engine._temporary = directory
        return engine

    @classmethod
    def from_archive(
        cls,
        path: str | os.PathLike,
        quantization: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
        sha256: str | None = None,
    ) -> "CTranslate2Engine":
        """Open a `.nemo` archive, which must have `sha256` if that is given, and convert it, as `from_model`."""
        check_quantization(quantization)
        return cls.from_model(restore_model(path, sha256=sha256), quantization, device, threads)

    def close(self) -> None:
        """Free the translator and end its threads: it cannot be freed any more in a process that is forked later."""
        self._translator, self._workers, self._threads = None, 0, 0

    def _batches(self, lengths: Mapping[int, int], batch_tokens: int) -> list[list[int]]:
        return list(equal_batches(lengths, batch_tokens))

    def _translate(
        self,
        sentences: Sequence[str],
        ids: Mapping[int, list[int]],
        settings: SearchSettings,
        groups: Sequence[list[int]],
    ) -> Iterator[Batch]:
        tokens = [[self._source_tokens(ids[place]) for place in places] for places in groups]
        options = [self._options(settings, len(ids[places[0]])) for places in groups]
        run = self._sample if settings.search in SAMPLED else self._search
        for places, results in zip(groups, run(tokens, options, settings), strict=True):
            yield [(place, self._hypotheses(result, settings)) for place, result in zip(places, results, strict=True)]

    def score(self, groups: Sequence[Sequence[tuple[list[int], list[int]]]]) -> Iterator[list[float]]:
        """Yield log-probabilities of targets, as `TextEngine.score`."""

        def submit(group: Sequence[tuple[list[int], list[int]]]) -> Callable[[], list[float]]:
            sources = [self._source_tokens(source) for source, _ in group]
            targets = [[self._target_pieces[id_] for id_ in target] for _, target in group]
            pending = self._translator.score_batch(sources, targets, max_input_length=0, asynchronous=True)
            return lambda: [math.fsum(item.result().log_probs) for item in pending]

        return _in_order(map(submit, groups), ahead=2 * self._workers)

    def _source_tokens(self, ids: list[int]) -> list[str]:
        """Return what CTranslate2 gets of a source: it adds start and end token, but where a language is in front."""
        return [self._source[id_] for id_ in (ids[1:-1] if self.text.language_token is None else ids)]

    def _translate_batch(self, translator: ctranslate2.Translator, batch: list[list[str]], **options) -> list:
        prefix = {"target_prefix": [self._prefix] * len(batch)} if self._prefix else {}
        return translator.translate_batch(batch, **prefix, **options)

    def _options(self, settings: SearchSettings, source_length: int) -> dict:
        """Return the arguments of `translate_batch` for sources of so many tokens, start and end token included."""
        longest = min(source_length + settings.max_length_delta, self.longest_target)
        options = beam_options(settings.beam_size if settings.search == "beam" else 1, longest)
        options["return_end_token"] = True
        if settings.search != "beam":
            options["num_hypotheses"] = settings.num_hypotheses
        if settings.search == "top_k":
            options |= {"sampling_topk": settings.top_k, "sampling_temperature": settings.temperature}
        if settings.search == "top_p":
            options |= {"sampling_topk": 0, "sampling_topp": settings.top_p}
            options |= {"sampling_temperature": settings.temperature}
        return options

    def _search(self, tokens: Sequence, options: Sequence[dict], settings: SearchSettings) -> Iterator[list]:
        """Yield the results of each batch in order; several are decoded at once, each on a thread of its own."""
        translator = self._load(len(tokens))

        def submit(batch: list[list[str]], arguments: dict) -> Callable[[], list]:
            pending = self._translate_batch(translator, batch, asynchronous=True, **arguments)
            return lambda: self._without_padding(translator, batch, [item.result() for item in pending], arguments)

        return _in_order(map(submit, tokens, options), ahead=2 * self._workers)

    def _sample(self, tokens: Sequence, options: Sequence[dict], settings: SearchSettings) -> Iterator[list]:
        workers, _ = self._pool(len(tokens))

        def decode(batch: list[list[str]], arguments: dict) -> list:
            digest = hashlib.sha256(repr((settings.seed, batch)).encode()).digest()
            with _SEEDING:  # CTranslate2 reads its seed once in the life of a translator's thread, at the first draw
                ctranslate2.set_random_seed(int.from_bytes(digest[:4], "big"))
                translator = self._new_translator(workers=1, threads=1)
                first = {**arguments, "max_decoding_length": 1}
                self._translate_batch(translator, [[self._source[-1]]], **first)
            results = self._translate_batch(translator, batch, **arguments)
            return self._without_padding(translator, batch, results, arguments)

        with ThreadPoolExecutor(workers) as pool:
            futures = (pool.submit(decode, *item).result for item in zip(tokens, options, strict=True))
            yield from _in_order(futures, ahead=workers)

    def _without_padding(
        self, translator: ctranslate2.Translator, batch: list[list[str]], results: list, arguments: dict
    ) -> list[list[tuple[list[str], float]]]:
        pairs = zip(results, batch, strict=True)
        return [without(self._padding, self._end, result, translator, source, **arguments) for result, source in pairs]

    def _pool(self, count: int) -> tuple[int, int]:
        """Return how many batches of so many to decode at once, and with how many threads each."""
        return side_by_side(count if self.device == "cpu" else 1, self.threads, self._threads_of_batch)

    def _hypotheses(self, found: list[tuple[list[str], float]], settings: SearchSettings) -> list[Hypothesis]:
        ranked, eos = [], self.text.target_tokenizer.eos_id
        for pieces, score in found:
            ids = [self._target[piece] for piece in pieces[self._returned :]]
            length = len(ids)
            if ids[-1:] == [eos]:
                ids.pop()
            ranked.append((score / length_penalty(len(ids), settings.length_penalty), score, length, ids))
        ranked.sort(key=lambda item: -item[0])
        return [self._hypothesis(ids, score, length) for _, score, length, ids in ranked[: settings.num_hypotheses]]

    def _load(self, count: int) -> ctranslate2.Translator:
        """Return a translator for so many batches at once; only one is kept."""
        workers, threads = self._pool(count)
        if workers > self._workers or threads != self._threads:
            self._translator = None  # frees its memory first
            self._translator = self._new_translator(workers, threads)
            self._workers, self._threads = workers, threads
        return self._translator

    def _new_translator(self, workers: int, threads: int) -> ctranslate2.Translator:
        if fault := device_fault(self.device):
            raise InputError(f"{fault}. Or give the device cpu; a model of NeMo's can use the engine 'nemo'")
        kind, _, index = self.device.partition(":")
        try:
            translator = ctranslate2.Translator(
                str(self.directory),
                device=kind,
                device_index=int(index or 0),
                inter_threads=workers,
                intra_threads=threads,
            )
            if kind != "cpu":  # what is missing shows at the first product
                translator.translate_batch([[self._source[-1]]], beam_size=1, max_decoding_length=1)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"CTranslate2 cannot decode '{self.directory}' on '{self.device}': {error}. Use the engine 'nemo', or "
                "the device cpu"
            ) from error
        if self._check is not None:
            self._check()
        return translator


def _in_order(results: Iterable[Callable[[], list]], ahead: int) -> Iterator[list]:
    """Yield results in order, with at most `ahead` more under way."""
    waiting: deque[Callable[[], list]] = deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()
