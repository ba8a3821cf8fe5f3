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
"""Decoding with NeMo's own modules: for models that do not convert, ensembles, and sampling that repeats exactly."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.transformer import GreedySequenceGenerator
from torch import Tensor, nn

from nemo_distill.config.languages import Languages
from nemo_distill.data.encoders import depends_on_padding, is_latent, longest_source
from nemo_distill.data.processors import form_difference
from nemo_distill.data.text import TextPipeline, batches
from nemo_distill.data.vocabulary import SIDES, vocabulary_differences
from nemo_distill.decoding.engine import (
    SAMPLED,
    Batch,
    Hypothesis,
    SearchSettings,
    TextEngine,
    archive_settings,
)
from nemo_distill.decoding.exported_program import equal_batches, length_penalty
from nemo_distill.decoding.sampling import sample
from nemo_distill.decoding.search import BatchIndependentBeamSearch, evaluation_mode
from nemo_distill.errors import TeacherError


class NeMoEngine(TextEngine):
    """Translates with one model, or with several whose probabilities are averaged; see `Engine`.

    Hypotheses do not depend on the batch, up to rounding of floating-point sums where two are equally good. The
    models' weights, modes, gradient flags and searches stay as they were.

    Args:
        models: a model on the device where to decode, or several with the same vocabularies; text is processed as
            the first one does.
        languages: which pair, of models of several.

    Raises:
        TeacherError: the models have different vocabularies or forms of text, or none is given.
        InputError: a model of several languages, and which one is meant is not said.

    Example:
        >>> engine = NeMoEngine(restore_model("teacher.nemo"))  # doctest: +SKIP
        >>> for batch in engine.translate(["Guten Tag"], SearchSettings(num_hypotheses=4)):  # doctest: +SKIP
        ...     print(batch)
    """

    name = "nemo"

    def __init__(self, models: MTEncDecModel | Sequence[MTEncDecModel], languages: Languages | None = None) -> None:
        self.models = [models] if isinstance(models, nn.Module) else list(models)
        if not self.models:
            raise TeacherError("no model to decode with; give at least one")
        first = self.models[0]
        for number, model in enumerate(self.models[1:], start=2):
            _check_alike(first, model, number)
            model.to(first.device)
        if len(self.models) > 1:
            self.name = f"nemo, {len(self.models)} models"
        self.text = TextPipeline.of_model(first, languages)
        self.text.longest_source = min(map(longest_source, self.models))
        self.longest_target = min(model.decoder.max_sequence_length for model in self.models)
        self.default_settings = archive_settings(first)
        self.truncated: list[int] = []

    @property
    def device(self) -> str:
        """Where the first model is."""
        return str(self.models[0].device)

    @property
    def threads(self) -> int:
        """CPU threads of torch."""
        return torch.get_num_threads()

    def _batches(self, lengths: Mapping[int, int], batch_tokens: int) -> list[list[int]]:
        alone = any(map(depends_on_padding, self.models))
        return list((equal_batches if alone else batches)(lengths, batch_tokens))

    def _translate(
        self,
        sentences: Sequence[str],
        ids: Mapping[int, list[int]],
        settings: SearchSettings,
        groups: Sequence[list[int]],
    ) -> Iterator[Batch]:
        search = _EnsembleSearch(self.models, settings)
        for places in groups:
            rows, texts = [ids[place] for place in places], [sentences[place] for place in places]
            yield list(zip(places, self._decode(search, rows, texts, settings), strict=True))

    def score(self, groups: Sequence[Sequence[tuple[list[int], list[int]]]]) -> Iterator[list[float]]:
        """Yield log-probabilities of targets, as `TextEngine.score`."""
        alone = any(map(depends_on_padding, self.models))
        for group in groups:
            parts = [[pair] for pair in group] if alone else [group]
            yield [score for part in parts for score in self._score(part)]

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        tokenizer = self.text.target_tokenizer
        source, source_mask = self._padded([source for source, _ in pairs], self.text.source_tokenizer.pad_id)
        rows = [[tokenizer.bos_id, *target, tokenizer.eos_id] for _, target in pairs]
        target, mask = self._padded(rows, tokenizer.pad_id)  # [B, L + 1]
        with torch.no_grad(), evaluation_mode(*self.models):
            read = [_encode(model, source, source_mask) for model in self.models]
            log_probabilities = torch.stack(
                [
                    model.log_softmax(
                        hidden_states=model.decoder(
                            input_ids=target[:, :-1],
                            decoder_mask=mask[:, 1:],
                            encoder_embeddings=states,
                            encoder_mask=states_mask,
                        )
                    )
                    .float()
                    .gather(2, target[:, 1:, None])  # [B, L, 1]
                    for model, (states, states_mask) in zip(self.models, read, strict=True)
                ]
            )
        mean = log_probabilities.logsumexp(dim=0).squeeze(2) - math.log(len(self.models))  # [B, L]
        return (mean * mask[:, 1:]).sum(dim=1).tolist()

    def _padded(self, rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
        """Return ids [B, T] and their mask [B, T], 1 at real tokens."""
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
        device = self.models[0].device
        return ids.to(device), (torch.arange(ids.shape[1]) < lengths).float().to(device)

    def _decode(
        self, search: "_EnsembleSearch", ids: list[list[int]], sentences: list[str], settings: SearchSettings
    ) -> list[list[Hypothesis]]:
        source, mask = self._padded(ids, self.text.source_tokenizer.pad_id)
        with torch.no_grad(), evaluation_mode(*self.models):
            states, masks = search.encode(source, mask)
            if settings.search in SAMPLED:
                tokens, scores = sample(search, states, masks, sentences, settings)
            else:
                tokens, scores = search.search(states, masks, wanted=settings.num_hypotheses)
        count = settings.num_hypotheses
        return [
            self._hypotheses(*rows, settings)
            for rows in zip(tokens[:, :count, 1:].tolist(), scores[:, :count].tolist(), strict=True)
        ]

    def _hypotheses(self, tokens: list[list[int]], scores: list[float], settings: SearchSettings) -> list[Hypothesis]:
        """Return the hypotheses of one sentence, best first, from their tokens after the start token."""
        tokenizer, ranked = self.text.target_tokenizer, []
        for ids, score in zip(tokens, scores, strict=True):
            end = next((i for i, id_ in enumerate(ids) if id_ in (tokenizer.eos_id, tokenizer.pad_id)), len(ids))
            length = end + (ids[end : end + 1] == [tokenizer.eos_id])  # padding follows one cut at its longest
            rank = score / length_penalty(end, settings.length_penalty)
            ranked.append((rank, self._hypothesis(ids[:end], score, length)))
        return [hypothesis for _, hypothesis in sorted(ranked, key=lambda pair: -pair[0])]


class _EnsembleSearch(BatchIndependentBeamSearch):
    """The search over one or several models: encoder states lie side by side, probabilities are averaged.

    What is no token is never generated.
    """

    def __init__(self, models: Sequence[MTEncDecModel], settings: SearchSettings) -> None:
        first = models[0]
        super().__init__(
            embedding=first.decoder.embedding,
            decoder=first.decoder.decoder,
            log_softmax=first.log_softmax,
            pad=first.decoder_tokenizer.pad_id,
            bos=first.decoder_tokenizer.bos_id,
            eos=first.decoder_tokenizer.eos_id,
            beam_size=settings.beam_size if settings.search == "beam" else 1,
            len_pen=settings.length_penalty,
            max_sequence_length=min(model.decoder.max_sequence_length for model in models),
            max_delta_length=settings.max_length_delta,
        )
        self.models = models
        # padding, and rows of the head that stand for no token
        self.meaningless = [self.pad, *range(first.decoder_tokenizer.vocab_size, first.decoder.vocab_size)]
        self.members = [
            GreedySequenceGenerator(
                model.decoder.embedding, model.decoder.decoder, model.log_softmax, self.pad, self.bos, self.eos
            )
            for model in models
        ]

    def encode(self, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoders of all models read of source ids [B, S] with their mask, side by side.

        Returns:
            States [B, P, sum of H], and masks [B, P, models + 1]: which positions count for each model, and last the
            source's own. P is the largest number of positions; a bottleneck model may have others than the source.
        """
        read = [_encode(model, source, mask) for model in self.models]
        longest = max(each.shape[1] for _, each in [*read, (None, mask)])
        states = [nn.functional.pad(each, (0, 0, 0, longest - each.shape[1])) for each, _ in read]
        masks = [each.float() for each in (*(latent_mask for _, latent_mask in read), mask)]
        masks = [nn.functional.pad(each, (0, longest - each.shape[1])) for each in masks]
        return torch.cat(states, dim=2), torch.stack(masks, dim=2)

    def limits(self, encoder_input_mask: Tensor) -> Tensor:
        """Return [B], the most tokens of a hypothesis: counted from the source's, whatever the decoder reads of it."""
        return super().limits(encoder_input_mask[..., -1])

    def _one_step_forward(self, tokens, states, masks, memories=None, pos=0):
        log_probabilities, memories = self._average_step(tokens, states, masks, memories, pos)  # [R, 1, V]
        log_probabilities[..., self.meaningless] = -math.inf
        return log_probabilities, memories

    def _average_step(self, tokens, states, masks, memories, pos):
        if len(self.members) == 1:
            return super()._one_step_forward(tokens, states, masks[..., 0], memories, pos)
        rest = iter(memories or [])
        all_log_probabilities, all_memories = [], []
        parts = states.split([model.decoder.hidden_size for model in self.models], dim=2)
        for member, part, mask in zip(self.members, parts, masks.unbind(dim=2), strict=False):  # not the source's
            # a decoder caches its input, each layer's output and, where there is one, that of its last norm
            count = 1 + len(member.decoder.layers) + (member.decoder.final_layer_norm is not None)
            own = None if memories is None else list(islice(rest, count))
            log_probabilities, own = member._one_step_forward(tokens, part, mask, own, pos)
            all_log_probabilities.append(log_probabilities.float())
            all_memories += own
        return torch.stack(all_log_probabilities).logsumexp(dim=0) - math.log(len(self.members)), all_memories


def _encode(model: nn.Module, source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the decoder reads of a source, and which of its positions count; a latent variable has its mean.

    Args:
        model: the model.
        source: token ids [B, S].
        mask: [B, S], 1 at real tokens and 0 at padding.

    Returns:
        States [B, P, H] and their mask [B, P]; P is S but for the bottleneck models that have positions of their own.
    """
    if not is_latent(model):
        return model.encoder(input_ids=source, encoder_mask=mask), mask
    hidden, latent_mask = model.encoder(input_ids=source, encoder_mask=mask, return_mask=True)
    return model.latent2hidden(model.hidden2latent_mean(hidden)), latent_mask


def _check_alike(first: MTEncDecModel, other: MTEncDecModel, number: int) -> None:
    for side, difference in vocabulary_differences(other, first, "the first one's"):
        raise TeacherError(
            f"model {number} of the ensemble has another {SIDES[side]} vocabulary than the first: {difference}. "
            "Average only models trained with the same tokenizers"
        )
    if difference := form_difference(other.cfg, first.cfg):
        raise TeacherError(
            f"model {number} of the ensemble has text of another form than the first: {difference}. Average only "
            "models of the same languages; where an archive does not say what it was trained on, --source-lang and "
            "--target-lang do (ignore: raw text)"
        )
