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
from dataclasses import dataclass

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
    """The hypotheses of the `S` sentences still being decoded, `W` of them each, best first."""

    sentences: Tensor
    """[S] place of each sentence in the batch."""
    limits: Tensor
    """[S] most tokens a hypothesis may have after the start token."""
    tokens: Tensor
    """[S, W, T] start token, tokens, then padding after an end."""
    scores: Tensor
    """[S, W] sum of log-probabilities, without length penalty."""
    lengths: Tensor
    """[S, W] length as the penalty counts it: tokens without start and end, plus 2."""
    ended: Tensor
    """[S, W] True where the hypothesis has produced its end token."""

    def select(self, keep: Tensor) -> "_Beams":
        """Return the beams of the sentences where `keep` [S] is True."""
        return _Beams(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


class BatchIndependentBeamSearch(BeamSearchSequenceGenerator):
    """Beam search in which a sentence's hypotheses depend on that sentence alone.

    Takes the place of `model.beam_search` of an `MTEncDecModel` (see `repair_search`): same arguments, same return
    values, same modules. Differences from NeMo 1.23:

    - Cached states follow the hypotheses they belong to, and each hypothesis is ranked by its own length penalty
      `((5 + L) / 6) ** len_pen`, where `L` is its number of tokens (without start and end) plus 2, as in NeMo.
    - At most `own source length + max_delta_length` tokens are generated (source length counts start and end tokens,
      not padding), and never more than `max_sequence_length`.
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
        tokens, scores = self.search(
            encoder_hidden_states, encoder_input_mask, decoder_input_ids, whole_beam=return_beam_scores
        )
        if return_beam_scores:
            return tokens.flatten(0, 1), scores.view(-1, 1), tokens[:, 0]
        return tokens[:, 0]

    def search(
        self,
        encoder_hidden_states: Tensor,
        encoder_input_mask: Tensor,
        decoder_input_ids: Tensor | None = None,
        whole_beam: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode a batch; arguments as in `__call__`.

        Args:
            encoder_hidden_states: [B, T, H] encoder output.
            encoder_input_mask: [B, T], 1 at real tokens and 0 at padding.
            decoder_input_ids: [B, P] tokens that each hypothesis starts with; by default one start token.
            whole_beam: every hypothesis counts; otherwise a sentence ends as soon as its best one is certain.

        Returns:
            tokens [B, beam_size, L], best first, start token included, padded; and the sums of their
            log-probabilities [B, beam_size], minus infinity where there is no hypothesis.
        """
        with torch.no_grad(), evaluation_mode(self.embedding, self.decoder, self.log_softmax):
            return self._search(decoder_input_ids, encoder_hidden_states, encoder_input_mask, whole_beam)

    def _search(
        self,
        decoder_input_ids: Tensor | None,
        encoder_hidden_states: Tensor,
        encoder_input_mask: Tensor,
        whole_beam: bool,
    ) -> tuple[Tensor, Tensor]:
        beams = self._start(decoder_input_ids, encoder_hidden_states, encoder_input_mask)
        batch_size, _, prefix_length = beams.tokens.shape
        longest = prefix_length + max(int(beams.limits.max()) - prefix_length + 1, 1)
        all_tokens = beams.tokens.new_full((batch_size, self.beam_size, longest), self.pad)
        all_scores = beams.scores.new_full((batch_size, self.beam_size), -math.inf)
        memories, width, position = None, 1, 0

        while len(beams.sentences) > 0:
            rows = (~beams.ended).flatten().nonzero().squeeze(1)  # [N] hypotheses that go on, among S * W
            places = beams.sentences[rows // beams.ended.shape[1]]
            log_probabilities, memories = self._one_step_forward(
                beams.tokens.flatten(0, 1)[rows, position:],
                encoder_hidden_states[places],
                encoder_input_mask[places],
                memories,
                position,
            )
            position = beams.tokens.shape[2]
            beams, parents = self._advance(beams, rows, log_probabilities[:, -1].float())

            done = self._finished(beams, whole_beam)  # [S]
            width, length = beams.tokens.shape[1:]
            all_tokens[beams.sentences[done], :width, :length] = beams.tokens[done]
            all_scores[beams.sentences[done], :width] = beams.scores[done]
            going_on = parents[~done][~beams.ended[~done]]
            memories = [memory[going_on] for memory in memories]
            beams = beams.select(~done)

        return all_tokens[:, :, :length], all_scores

    def _start(self, decoder_input_ids: Tensor | None, encoder_hidden_states: Tensor, mask: Tensor) -> _Beams:
        batch_size, device = encoder_hidden_states.shape[0], encoder_hidden_states.device
        if decoder_input_ids is None:
            decoder_input_ids = torch.full((batch_size, 1), self.bos, dtype=torch.long, device=device)
        return _Beams(
            sentences=torch.arange(batch_size, device=device),
            limits=self.limits(mask),
            tokens=decoder_input_ids.unsqueeze(1),
            scores=torch.zeros(batch_size, 1, device=device),
            lengths=torch.full((batch_size, 1), decoder_input_ids.shape[1] + 1, dtype=torch.long, device=device),
            ended=torch.zeros(batch_size, 1, dtype=torch.bool, device=device),
        )

    def limits(self, encoder_input_mask: Tensor) -> Tensor:
        """Return [B], the most tokens that a hypothesis of each sentence may have after the start token."""
        limits = torch.full_like(encoder_input_mask[:, 0], self.max_seq_length, dtype=torch.long)
        if self.max_delta_len >= 0:
            limits = torch.minimum(limits, encoder_input_mask.sum(dim=1).long() + self.max_delta_len)
        return limits

    def _advance(self, beams: _Beams, rows: Tensor, log_probabilities: Tensor) -> tuple[_Beams, Tensor]:
        """Extend every hypothesis by one token and keep the best of each sentence.

        Args:
            beams: the hypotheses so far, `S` sentences of `W`.
            rows: [N] places of the hypotheses that go on, among `S * W`.
            log_probabilities: [N, V] of their next token.

        Returns:
            The new beams, and for each new hypothesis the place among `rows` of the one it extends [S, W'] (without
            meaning where that one had ended).
        """
        sentences, width, _ = beams.tokens.shape
        # the two end tokens carry another penalty than the rest: with two more choices the best `beam_size` are in
        choices = 1 if self.beam_size == 1 else min(self.beam_size + 2, log_probabilities.shape[1])
        best_log_probabilities, best_tokens = log_probabilities.topk(choices, dim=1)

        # candidates [S * W, choices]; an ended hypothesis has one, itself
        scores = beams.scores.new_full((sentences * width, choices), -math.inf)
        scores[:, 0] = beams.scores.flatten()
        scores[rows] = beams.scores.flatten()[rows].unsqueeze(1) + best_log_probabilities
        tokens = torch.full_like(scores, self.pad, dtype=torch.long)
        tokens[rows] = best_tokens
        ended = (tokens == self.eos) | (tokens == self.pad)
        lengths = beams.lengths.view(-1, 1) + (~ended).long()

        ranks = (scores / self.compute_len_penalty(lengths, self.len_pen)).view(sentences, width * choices)
        chosen = ranks.topk(min(self.beam_size, width * choices), dim=1).indices  # [S, W'], best first
        parents = chosen // choices
        parent_tokens = beams.tokens.gather(1, parents.unsqueeze(2).expand(-1, -1, beams.tokens.shape[2]))

        def pick(values: Tensor) -> Tensor:
            return values.view(sentences, -1).gather(1, chosen)

        extended = _Beams(
            sentences=beams.sentences,
            limits=beams.limits,
            tokens=torch.cat([parent_tokens, pick(tokens).unsqueeze(2)], dim=2),
            scores=pick(scores),
            lengths=pick(lengths),
            ended=pick(ended),
        )
        place_among_rows = torch.zeros(sentences * width, dtype=torch.long, device=rows.device)
        place_among_rows[rows] = torch.arange(len(rows), device=rows.device)
        return extended, place_among_rows.view(sentences, width).gather(1, parents)

    def _finished(self, beams: _Beams, whole_beam: bool) -> Tensor:
        """Return [S], True where no better hypothesis can come.

        Unless the whole beam is wanted, a sentence also ends when no unfinished hypothesis could still overtake the
        best one: log-probabilities only add to the negative, so its rank is at most its score by its largest penalty.
        """
        done = beams.ended.all(dim=1) | (beams.tokens.shape[2] > beams.limits)
        if whole_beam:
            return done
        penalties = self.compute_len_penalty(beams.lengths, self.len_pen)
        largest = torch.maximum(penalties, self.compute_len_penalty(beams.limits + 2, self.len_pen).unsqueeze(1))
        best_ended = (beams.scores / penalties).masked_fill(~beams.ended, -math.inf).amax(dim=1)
        reachable = (beams.scores / largest).masked_fill(beams.ended, -math.inf).amax(dim=1)
        return done | (best_ended > reachable)


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
