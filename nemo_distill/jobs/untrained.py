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
"""How long a model takes for a sentence, before it is trained: with random weights, exported as it will be.

Such a model hardly ever ends a sentence by itself, so each hypothesis is made as long as the corpus' typical one.
"""

import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ctranslate2
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer
from nemo.utils import logging
from omegaconf import OmegaConf

from nemo_distill.archives.restore import extract_tokenizers
from nemo_distill.data.text import TextPipeline
from nemo_distill.data.tokenizer import MODEL, library_of, train
from nemo_distill.decoding.conversion import convert
from nemo_distill.decoding.exported_program import beam_options
from nemo_distill.jobs.measuring import sample
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.sizes import Timing
from nemo_distill.jobs.teachers import SIDES, GivenTeachers
from nemo_distill.support.temporary import TemporaryDirectory
from nemo_distill.support.text_files import count_lines, read_lines
from nemo_distill.support.threads import threads_for

_LEARNT, _COUNTED = 100_000, 2_000
"""Pairs of the text that a tokenizer is trained on, where there is none yet; pairs whose tokens are counted."""
_ROUNDS, _FEWEST, _SECONDS = 100, 9, 2.0
"""Sentences that are timed: at most, at least, and for how long."""


class Untrained:
    """Measures models by their `model` sections.

    Args:
        recipe: says the size of the vocabulary, where no teacher is given.
        given: teachers, whose first one has the tokenizers.
        text: the training text, source and target.
        quantization: of the export.
        directory: of the job, whose tokenizer is taken if it has one.
    """

    def __init__(
        self,
        recipe: Recipe,
        given: GivenTeachers | None,
        text: tuple[Path, Path],
        quantization: str,
        directory: Path,
    ) -> None:
        self._quantization = quantization
        self._temporary = TemporaryDirectory()
        self._tokenizers = self._find_tokenizers(recipe, given, text, directory)
        self.lengths = self._typical_lengths(text)
        """Tokens of a source, without start and end, and of a target with its end."""

    def _find_tokenizers(
        self, recipe: Recipe, given: GivenTeachers | None, text: tuple[Path, Path], directory: Path
    ) -> dict[str, dict[str, Any]]:
        place = self._temporary.path / "tokenizer"
        if given is not None:
            place.mkdir()
            found = extract_tokenizers(given.paths[0], place, trust=given.trust_archive)
            return {side: {**found[side], **given.reading(side, found[side]["library"])} for side in SIDES}
        own = directory / "tokenizer" / MODEL
        if not own.is_file():
            train(self._sample(text, _LEARNT), recipe.vocab_size, place)
            own = place / MODEL
        return {side: {"library": library_of(own), "tokenizer_model": str(own)} for side in SIDES}

    def _sample(self, text: tuple[Path, Path], lines: int) -> list[Path]:
        files = [(path, self._temporary.path / f"text{side}") for side, path in enumerate(text)]
        sample(files, count_lines(text[0]), lines)
        return [target for _, target in files]

    def _typical_lengths(self, text: tuple[Path, Path]) -> tuple[int, int]:
        lengths = []
        for side, path in zip(SIDES, self._sample(text, _COUNTED), strict=True):
            section = self._tokenizers[side]
            with logging.temp_verbosity(logging.ERROR):
                tokenizer = get_nmt_tokenizer(section["library"], tokenizer_model=section["tokenizer_model"])
            counts = [len(tokenizer.text_to_ids(line)) for line in read_lines(path) if line.strip()]
            lengths.append(max(int(statistics.median(counts or [1])), 1))
        return lengths[0], lengths[1] + 1

    def __call__(self, section: Mapping[str, Any]) -> Timing:
        """Return what a sentence of the typical length takes.

        Raises:
            ConversionError: such a model does not convert.
        """
        tokenizers = {f"{side}_tokenizer": {**self._tokenizers[side], "bpe_dropout": 0.0} for side in SIDES}
        with logging.temp_verbosity(logging.ERROR), torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = MTEncDecModel(OmegaConf.create({**section, **tokenizers})).eval()
        with TemporaryDirectory() as directory:
            convert(model, directory, self._quantization)
            threads = threads_for(os.path.getsize(directory / "model.bin"))
            pieces = TextPipeline.of_model(model).source_pieces()
            seconds = self._time(directory, pieces, section["beam_size"], threads)
        return Timing(1000 * statistics.median(seconds), *self.lengths, threads)

    def _time(self, directory: Path, pieces: list[str], beam_size: int, threads: int) -> list[float]:
        translator = ctranslate2.Translator(str(directory), device="cpu", inter_threads=1, intra_threads=threads)
        source, target = self.lengths
        options = {**beam_options(beam_size, target), "min_decoding_length": target}
        sentence = [pieces[4 + number % (len(pieces) - 4)] for number in range(source)]  # no special ones
        seconds: list[float] = []
        translator.translate_batch([sentence], **options)  # warm-up
        begun = time.perf_counter()
        while len(seconds) < _ROUNDS and (len(seconds) < _FEWEST or time.perf_counter() - begun < _SECONDS):
            start = time.perf_counter()
            translator.translate_batch([sentence], **options)
            seconds.append(time.perf_counter() - start)
        return seconds
