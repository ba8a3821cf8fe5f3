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
"""Beam search over NeMo modules whose hypotheses do not depend on the batch.

NeMo 1.23's own search mixes the cached states of the sentences of a batch, ranks with length penalties of other
hypotheses, and unfreezes the modules it used. This one decodes each sentence as if it were alone.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common.transformer import BeamSearchSequenceGenerator
from torch import Tensor, nn

from nemo_distill.errors import InputError


@contextlib.contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Put modules in eval mode for a block; afterwards every submodule has the mode it had. No gradient flag changes.

    Example:
        >>> with evaluation_mode(model), torch.no_grad():  # doctest: +SKIP
        ...     model(...)
    """
    modes = [(submodule, submodule.training) for module in modules for submodule in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


@dataclass
class _Beams:
    """The `S` sentences still being decoded: `W` open hypotheses each, and the ended ones, kept apart."""

    sentences: Tensor
    """[S] place of each sentence in the batch."""
    limits: Tensor
    """[S] most tokens a hypothesis may have after the start token."""
    tokens: Tensor
    """[S, W, T] start token and tokens of the open hypotheses."""
    scores: Tensor
    """[S, W] sums of their log-probabilities, best first; minus infinity where there is none."""
    ended_tokens: Tensor
    """[S, beam_size, T] start token, tokens and padding of the hypotheses that have ended."""
    ended_scores: Tensor
    """[S, beam_size] sums of their log-probabilities, minus infinity where there is none."""
    ended_ranks: Tensor
    """[S, beam_size] the same by their length penalties, best first."""
    counts: Tensor
    """[S] how many have ended, those that were left behind among them."""
    first_ended: Tensor
    """[S] True where the likeliest hypothesis of a length has ended."""

    def select(self, keep: Tensor) -> "_Beams":
        """Return the beams of the sentences where `keep` [S] is True."""
        return _Beams(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


class BatchIndependentBeamSearch(BeamSearchSequenceGenerator):
    """Beam search in which a sentence's hypotheses depend on that sentence alone.

    Takes the place of `model.beam_search` of an `MTEncDecModel` (see `repair_search`): same arguments, same return
    values, same modules. Differences from NeMo 1.23:

    - Open hypotheses compete with open ones, all of one length, by the sum of their log-probabilities. One that ends
      among the best `beam_size` leaves the beam, and the next best open one takes its place, as in CTranslate2. In
      NeMo ended hypotheses stay and compete with open ones of any length, which a length penalty favours.
    - Ended hypotheses are ranked, each by its own length penalty `((5 + L) / 6) ** len_pen`, where `L` is its number
      of tokens (without start and end) plus 2, as in NeMo. A sentence is done when `beam_size` have ended, the
      likeliest of one length among them, as in CTranslate2; or when no open one could overtake any more.
    - Cached states follow the hypotheses they belong to.
    - At most `own source length + max_delta_length` tokens are generated (source length counts start and end tokens,
      not padding), and never more than `max_sequence_length`. What is open then counts as it is.
    - An end token ends a hypothesis also when it comes first. A generated padding token counts as an end.
    - Modules decode in eval mode without gradients and are left exactly as found: mode and `requires_grad`.
    - Ended hypotheses and finished sentences are no longer computed.

    With `beam_size=1` it is greedy search, whatever the length penalty.

    Example:
        >>> search = BatchIndependentBeamSearch(  # doctest: +SKIP
        ...     model.decoder.embedding, model.decoder.decoder, model.log_softmax, beam_size=4, len_pen=0.6
        ... )
        >>> tokens = search(encoder_hidden_states=states, encoder_input_mask=mask)  # doctest: +SKIP
    """

    def __call__(
        self,
        decoder_input_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_input_mask: Tensor | None = None,
        return_beam_scores: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Decode a batch.

        Args:
            decoder_input_ids: [B, P] tokens that each hypothesis starts with; by default one start token.
            encoder_hidden_states: [B, T, H] encoder output.
            encoder_input_mask: [B, T], 1 at real tokens and 0 at padding.
            return_beam_scores: return the whole beam too.

        Returns:
            [B, L] the best hypothesis of each sentence, start token included, padded; or, with `return_beam_scores`,
            `(all, scores, best)`: all hypotheses [B * beam_size, L], best first for each sentence, and the sums of
            their log-probabilities [B * beam_size, 1].

        Raises:
            ValueError: no encoder output is given.
        """
        if encoder_hidden_states is None or encoder_input_mask is None:
            raise ValueError(
                "encoder_hidden_states and encoder_input_mask are required: this search is for translation"
            )
        wanted = self.beam_size if return_beam_scores else 1
        tokens, scores = self.search(encoder_hidden_states, encoder_input_mask, decoder_input_ids, wanted)
        if return_beam_scores:
            return tokens.flatten(0, 1), scores.view(-1, 1), tokens[:, 0]
        return tokens[:, 0]

    def search(
        self,
        encoder_hidden_states: Tensor,
        encoder_input_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        wanted: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Decode a batch; arguments as in `__call__`.

        Args:
            encoder_hidden_states: [B, T, H] encoder output.
            encoder_input_mask: [B, T], 1 at real tokens and 0 at padding.
            decoder_input_ids: [B, P] tokens that each hypothesis starts with; by default one start token.
            wanted: how many of a sentence's hypotheses count, at most `beam_size`: it ends as soon as these are
                certain, and they are the same whatever the number.

        Returns:
            tokens [B, wanted, L], best first, start token included, padded; and the sums of their log-probabilities
            [B, wanted], minus infinity where there is no hypothesis.
        """
        with torch.no_grad(), evaluation_mode(self.embedding, self.decoder, self.log_softmax):
            return self._search(decoder_input_ids, encoder_hidden_states, encoder_input_mask, wanted)

    def _search(
        self, decoder_input_ids: Tensor | None, encoder_hidden_states: Tensor, encoder_input_mask: Tensor, wanted: int
    ) -> tuple[Tensor, Tensor]:
        beams = self._start(decoder_input_ids, encoder_hidden_states, encoder_input_mask)
        batch_size, _, prefix_length = beams.tokens.shape
        longest = prefix_length + max(int(beams.limits.max()) - prefix_length + 1, 1)
        found_tokens = beams.tokens.new_full((batch_size, wanted, longest), self.pad)
        found_scores = beams.scores.new_full((batch_size, wanted), -math.inf)
        memories, position = None, 0

        while len(beams.sentences) > 0:
            is_open = beams.scores > -math.inf  # [S, W]
            rows = is_open.flatten().nonzero().squeeze(1)  # [N] hypotheses that go on, among S * W
            places = beams.sentences[rows // is_open.shape[1]]
            log_probabilities, memories = self._one_step_forward(
                beams.tokens.flatten(0, 1)[rows, position:],
                encoder_hidden_states[places],
                encoder_input_mask[places],
                memories,
                position,
            )
            position = beams.tokens.shape[2]
            beams, parents = self._advance(beams, rows, log_probabilities[:, -1].float(), wanted)

            is_open = beams.scores > -math.inf
            memories = [memory[parents[is_open]] for memory in memories]
            done = ~is_open.any(dim=1)  # [S]
            length = beams.tokens.shape[2]
            found_tokens[beams.sentences[done], :, :length] = beams.ended_tokens[done, :wanted]
            found_scores[beams.sentences[done]] = beams.ended_scores[done, :wanted]
            beams = beams.select(~done)

        return found_tokens[:, :, :length], found_scores

    def _start(self, decoder_input_ids: Tensor | None, encoder_hidden_states: Tensor, mask: Tensor) -> _Beams:
        batch_size, device = encoder_hidden_states.shape[0], encoder_hidden_states.device
        if decoder_input_ids is None:
            decoder_input_ids = torch.full((batch_size, 1), self.bos, dtype=torch.long, device=device)
        none = torch.full((batch_size, self.beam_size), -math.inf, device=device)
        return _Beams(
            sentences=torch.arange(batch_size, device=device),
            limits=self.limits(mask),
            tokens=decoder_input_ids.unsqueeze(1),
            scores=torch.zeros(batch_size, 1, device=device),
            ended_tokens=decoder_input_ids.unsqueeze(1).expand(-1, self.beam_size, -1),
            ended_scores=none,
            ended_ranks=none,
            counts=torch.zeros(batch_size, dtype=torch.long, device=device),
            first_ended=torch.zeros(batch_size, dtype=torch.bool, device=device),
        )

    def limits(self, encoder_input_mask: Tensor) -> Tensor:
        """Return [B], the most tokens that a hypothesis of each sentence may have after the start token."""
        limits = torch.full_like(encoder_input_mask[:, 0], self.max_seq_length, dtype=torch.long)
        if self.max_delta_len >= 0:
            limits = torch.minimum(limits, encoder_input_mask.sum(dim=1).long() + self.max_delta_len)
        return limits

    def _advance(self, beams: _Beams, rows: Tensor, log_probabilities: Tensor, wanted: int) -> tuple[_Beams, Tensor]:
        """Extend every open hypothesis by one token; keep the best of each sentence, open and ended ones apart.

        Args:
            beams: the hypotheses so far, `S` sentences of `W`.
            rows: [N] places of the open ones among `S * W`.
            log_probabilities: [N, V] of their next token.
            wanted: how many ended ones count.

        Returns:
            The new beams, and for each new hypothesis the place among `rows` of the one it extends [S, W'] (without
            meaning where there is none).
        """
        sentences, width, length = beams.tokens.shape
        # two tokens end: with two choices more the best `beam_size` that go on are in
        choices = 1 if self.beam_size == 1 else min(self.beam_size + 2, log_probabilities.shape[1])
        best_log_probabilities, best_tokens = log_probabilities.topk(choices, dim=1)
        scores = beams.scores.new_full((sentences * width, choices), -math.inf)
        scores[rows] = beams.scores.flatten()[rows].unsqueeze(1) + best_log_probabilities
        tokens = torch.full_like(scores, self.pad, dtype=torch.long)
        tokens[rows] = best_tokens
        scores, order = scores.view(sentences, -1).sort(dim=1, descending=True, stable=True)  # [S, W * choices]
        tokens, parents = tokens.view(sentences, -1).gather(1, order), order // choices

        ends = (tokens == self.eos) | (tokens == self.pad)
        at_limit = length >= beams.limits  # [S]
        best = slice(min(self.beam_size, scores.shape[1]))
        joins = (ends | at_limit.unsqueeze(1))[:, best] & (scores[:, best] > -math.inf)
        beams = self._with_ended(beams, tokens[:, best], parents[:, best], scores[:, best], ends[:, best], joins)

        # the shortest or the longest has the largest penalty, and log-probabilities only add to the negative
        penalties = self._penalties(torch.stack([torch.full_like(beams.limits, length), beams.limits], dim=1))
        reachable = (scores / penalties.amax(dim=1, keepdim=True)).masked_fill(ends, -math.inf).amax(dim=1)
        done = at_limit | (beams.first_ended & (beams.counts >= self.beam_size))
        done |= reachable <= beams.ended_ranks[:, wanted - 1]
        scores = scores.masked_fill(ends | done.unsqueeze(1), -math.inf)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        chosen = order[:, best]  # [S, W']
        parents = parents.gather(1, chosen)
        extended = replace(
            beams,
            tokens=_extend(beams.tokens, parents, tokens.gather(1, chosen)),
            scores=scores[:, best],
        )
        place_among_rows = torch.zeros(sentences * width, dtype=torch.long, device=rows.device)
        place_among_rows[rows] = torch.arange(len(rows), device=rows.device)
        return extended, place_among_rows.view(sentences, width).gather(1, parents)

    def _with_ended(
        self, beams: _Beams, tokens: Tensor, parents: Tensor, scores: Tensor, ends: Tensor, joins: Tensor
    ) -> _Beams:
        """Return the beams with the best among the ended hypotheses and those of [S, K] candidates that join them.

        Args:
            beams: the hypotheses so far.
            tokens: last token of each candidate.
            parents: the hypothesis that each extends.
            scores: sums of log-probabilities.
            ends: True where the last token is an end, which no penalty counts.
            joins: True where a candidate joins.
        """
        length = beams.tokens.shape[2]
        ranks = (scores / self._penalties(length - ends.long())).masked_fill(~joins, -math.inf)
        ranks, order = torch.cat([beams.ended_ranks, ranks], dim=1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self.beam_size]
        own = torch.arange(self.beam_size, device=tokens.device).expand(len(tokens), -1)
        ended = _extend(beams.ended_tokens, own, torch.full_like(own, self.pad))
        candidates = _extend(beams.tokens, parents, tokens)
        all_tokens = torch.cat([ended, candidates], dim=1)
        return replace(
            beams,
            ended_tokens=all_tokens.gather(1, order.unsqueeze(2).expand(-1, -1, length + 1)),
            ended_scores=torch.cat([beams.ended_scores, scores], dim=1).gather(1, order),
            ended_ranks=ranks[:, : self.beam_size],
            counts=beams.counts + joins.sum(dim=1),
            first_ended=beams.first_ended | joins[:, 0],
        )

    def _penalties(self, tokens: Tensor) -> Tensor:
        """Return the length penalties of hypotheses of so many tokens without start and end."""
        return self.compute_len_penalty(tokens + 2, self.len_pen)


def _extend(tokens: Tensor, parents: Tensor, following: Tensor) -> Tensor:
    """Return [S, K, T + 1], the hypotheses `parents` [S, K] among tokens [S, W, T], each with a token of [S, K]."""
    own = tokens.gather(1, parents.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
    return torch.cat([own, following.unsqueeze(2)], dim=2)


def repair_search(model: MTEncDecModel) -> MTEncDecModel:
    """Replace `model.beam_search` by a `BatchIndependentBeamSearch` with the same settings and modules.

    The state dict does not change. A model repaired before is left alone.

    Returns:
        The same model.

    Raises:
        InputError: the model decodes by something other than NeMo's beam search, for instance by sampling.

    Example:
        >>> repair_search(MTEncDecModel.restore_from("teacher.nemo")).translate(["Guten Tag"])  # doctest: +SKIP
    """
    search = model.beam_search
    if isinstance(search, BatchIndependentBeamSearch):
        return model
    if type(search) is not BeamSearchSequenceGenerator:
        raise InputError(
            f"the model decodes with {type(search).__name__}, not with NeMo's BeamSearchSequenceGenerator; "
            "restore it from its archive to get the beam search back"
        )
    model.beam_search = BatchIndependentBeamSearch(
        embedding=search.embedding,
        decoder=search.decoder,
        log_softmax=search.log_softmax,
        beam_size=search.beam_size,
        len_pen=search.len_pen,
        pad=search.pad,
        bos=search.bos,
        eos=search.eos,
        max_sequence_length=search.max_seq_length,
        max_delta_length=search.max_delta_len,
        batch_size=search.batch_size,
    )
    return model
