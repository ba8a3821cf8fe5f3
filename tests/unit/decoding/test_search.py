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
"""The beam search against exhaustive search, against a naive one, against NeMo's, and in other batches."""

import itertools

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.modules.common import TokenClassifier
from nemo.collections.nlp.modules.common.transformer import (
    BeamSearchSequenceGenerator,
    GreedySequenceGenerator,
    TransformerDecoder,
    TransformerEmbedding,
)
from slow_cases import slow

from nemo_distill.decoding.search import BatchIndependentBeamSearch, evaluation_mode, repair_search
from nemo_distill.errors import InputError

PAD, BOS, EOS = 0, 1, 2
HIDDEN = 16


@pytest.fixture(params=[True, False], ids=["pre_ln", "post_ln"])
def modules(request) -> dict:
    """A random decoder over 11 tokens, its weights large enough that sentences differ, dropout on."""
    torch.manual_seed(3)
    return build_modules(vocabulary=11, pre_ln=request.param)


def build_modules(vocabulary: int, pre_ln: bool = True) -> dict:
    built = {
        "embedding": TransformerEmbedding(vocabulary, HIDDEN, max_sequence_length=64, num_token_types=0),
        "decoder": TransformerDecoder(2, HIDDEN, 32, 2, 0.1, 0.1, 0.1, pre_ln=pre_ln),
        "log_softmax": TokenClassifier(HIDDEN, vocabulary),
    }
    for module in built.values():
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return built


def sources(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random encoder states [B, T, H] and their mask [B, T]; what lies at padding is noise too."""
    states = torch.randn(len(lengths), max(lengths), HIDDEN, generator=torch.Generator().manual_seed(7))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).float()
    return states, mask


def log_probabilities(modules: dict, tokens: list[int], states: torch.Tensor) -> torch.Tensor:
    """Return [T, V]: after each prefix of `tokens`, from scratch; `states` [S, H] of one source, unpadded."""
    ids = torch.tensor([tokens])
    with torch.no_grad(), evaluation_mode(*modules.values()):
        hidden = modules["decoder"](
            modules["embedding"](ids), torch.ones(ids.shape), states[None], torch.ones(1, len(states))
        )
        return modules["log_softmax"](hidden_states=hidden)[0]


def sequence_score(modules: dict, tokens: list[int], states: torch.Tensor) -> float:
    """Return the sum of the log-probabilities of all tokens after the first."""
    forced = log_probabilities(modules, tokens[:-1], states)
    return forced.gather(1, torch.tensor(tokens[1:]).unsqueeze(1)).sum().item()


def normalized(score: float, tokens: list[int], alpha: float) -> float:
    """Return the score under the length penalty, by its definition."""
    length = sum(token not in (EOS, PAD) for token in tokens[1:]) + 2
    return score / ((5 + length) / 6) ** alpha


def naive_beam_search(
    modules: dict, states: torch.Tensor, beam_size: int, alpha: float, limit: int, start: tuple = (BOS,)
) -> list[tuple]:
    """Beam search over one sentence with Python lists: [(tokens, score)], best first; it stops as CTranslate2 does."""
    still_open, ended, first_ended = [(list(start), 0.0)], [], False
    for step in range(limit - len(start) + 1):
        candidates = []
        for tokens, score in still_open:
            following = log_probabilities(modules, tokens, states)[-1].tolist()
            candidates += [([*tokens, token], score + value) for token, value in enumerate(following)]
        candidates.sort(key=lambda item: -item[1])
        at_limit = step == limit - len(start)
        ended += [item for item in candidates[:beam_size] if at_limit or item[0][-1] in (EOS, PAD)]
        still_open = [item for item in candidates if item[0][-1] not in (EOS, PAD)][:beam_size]
        first_ended |= candidates[0] in ended
        if first_ended and len(ended) >= beam_size:
            break
    return sorted(ended, key=lambda item: -normalized(item[1], item[0], alpha))[:beam_size]


def without_padding(tokens: torch.Tensor | list[int]) -> list[int]:
    return [token for token in (tokens.tolist() if isinstance(tokens, torch.Tensor) else tokens) if token != PAD]


@pytest.mark.parametrize("alpha", [0.6, *slow(0.0, 2.0)])
def test_finds_the_best_of_all_sequences_when_the_beam_holds_them_all(alpha):
    torch.manual_seed(5)
    modules = build_modules(vocabulary=5)
    limit, lengths = 4, [3, 5, 2]
    states, mask = sources(lengths)
    search = BatchIndependentBeamSearch(
        **modules, beam_size=5**limit, len_pen=alpha, max_delta_length=-1, max_sequence_length=limit
    )
    found = search(encoder_hidden_states=states, encoder_input_mask=mask)
    for row, length in enumerate(lengths):
        sequences = []
        for size in range(limit + 1):
            for body in itertools.product([BOS, 3, 4], repeat=size):
                sequences += [[BOS, *body]] if size == limit else [[BOS, *body, EOS], [BOS, *body, PAD]]
        best = max(sequences, key=lambda s: normalized(sequence_score(modules, s, states[row, :length]), s, alpha))
        assert without_padding(found[row]) == without_padding(best)


@pytest.mark.parametrize(("beam_size", "alpha"), [(1, 0.0), (4, 0.6), *slow((2, 0.0), (4, 1.5), (12, 0.6))])
def test_equals_a_naive_search_sentence_by_sentence(modules, beam_size, alpha):
    lengths = [6, 2, 4, 6, 1, 3]
    states, mask = sources(lengths)
    search = BatchIndependentBeamSearch(**modules, beam_size=beam_size, len_pen=alpha, max_delta_length=5)
    tokens, scores, best = search(encoder_hidden_states=states, encoder_input_mask=mask, return_beam_scores=True)
    assert tokens.shape == (len(lengths) * beam_size, best.shape[1])
    assert scores.shape == (len(lengths) * beam_size, 1)
    for row, length in enumerate(lengths):
        expected = naive_beam_search(modules, states[row, :length], beam_size, alpha, limit=length + 5)
        beam = slice(row * beam_size, (row + 1) * beam_size)
        assert [without_padding(line) for line in tokens[beam]] == [without_padding(line) for line, _ in expected]
        assert scores[beam, 0].tolist() == pytest.approx([score for _, score in expected], abs=1e-4)
        assert without_padding(best[row]) == without_padding(expected[0][0])


def test_stopping_early_never_changes_the_best(modules):
    states, mask = sources([(7 * i) % 9 + 1 for i in range(40)])
    for alpha in (0.0, 0.6, 3.0, -1.0):
        search = BatchIndependentBeamSearch(**modules, beam_size=4, len_pen=alpha, max_delta_length=6)
        early = search(encoder_hidden_states=states, encoder_input_mask=mask)
        whole = search(encoder_hidden_states=states, encoder_input_mask=mask, return_beam_scores=True)[2]
        assert list(map(without_padding, early)) == list(map(without_padding, whole))


def test_does_not_depend_on_the_batch_where_nemo_does(modules):
    lengths = [(5 * i) % 7 + 1 for i in range(40)]
    states, mask = sources(lengths)
    settings = {"beam_size": 4, "len_pen": 0.6, "max_delta_length": 5}

    def alone_and_together(search):
        together = search(encoder_hidden_states=states, encoder_input_mask=mask)
        alone = [
            search(
                encoder_hidden_states=states[row : row + 1, :length], encoder_input_mask=mask[row : row + 1, :length]
            )
            for row, length in enumerate(lengths)
        ]
        return [without_padding(line[0]) for line in alone], [without_padding(line) for line in together]

    alone, together = alone_and_together(BatchIndependentBeamSearch(**modules, **settings))
    assert alone == together
    alone, together = alone_and_together(BeamSearchSequenceGenerator(**modules, **settings))
    assert alone != together, "the data is too easy to tell a good search from a bad one"


def test_one_sentence_without_penalty_equals_nemo(tiny_model, tiny_sources):
    """With one sentence and no length penalty NeMo's search has none of its faults."""
    tiny_model.beam_search.len_pen = 0.0
    tiny_sources = tiny_sources[:8]
    expected = [tiny_model.translate([sentence])[0] for sentence in tiny_sources]
    repair_search(tiny_model)
    assert [tiny_model.translate([sentence])[0] for sentence in tiny_sources] == expected
    assert tiny_model.translate(tiny_sources) == expected


def test_beam_of_one_is_greedy(modules):
    lengths = [6, 2, 4, 1]
    states, mask = sources(lengths)
    found = BatchIndependentBeamSearch(**modules, beam_size=1, len_pen=3.0, max_delta_length=5)(
        encoder_hidden_states=states, encoder_input_mask=mask
    )
    for row, length in enumerate(lengths):
        greedy = GreedySequenceGenerator(
            **modules, max_delta_length=6
        )(  # its limit counts the start token
            encoder_hidden_states=states[row : row + 1, :length], encoder_input_mask=mask[row : row + 1, :length]
        )
        assert without_padding(found[row]) == without_padding(greedy[0])


def test_scores_are_those_of_the_model(tiny_model, tiny_sources):
    """Every hypothesis of the beam, scored by the model's own forward pass."""
    repair_search(tiny_model)
    ids, mask = prepare(tiny_model, tiny_sources)
    with torch.no_grad():
        states = tiny_model.encoder(input_ids=ids, encoder_mask=mask)
    tokens, scores, _ = tiny_model.beam_search(
        encoder_hidden_states=states, encoder_input_mask=mask, return_beam_scores=True
    )
    beam = tiny_model.beam_search.beam_size
    target_mask = (tokens != PAD).float()
    with torch.no_grad():
        forced = tiny_model(
            ids.repeat_interleave(beam, 0), mask.repeat_interleave(beam, 0), tokens[:, :-1], target_mask[:, :-1]
        )
    expected = (forced.gather(2, tokens[:, 1:, None]).squeeze(2) * target_mask[:, 1:]).sum(1)
    torch.testing.assert_close(scores.squeeze(1), expected, atol=1e-4, rtol=1e-4)
    assert (scores.view(-1, beam)[:, 0] > -5).sum() > len(tiny_sources) / 2, "an untrained model tests little"


def test_limit_is_that_of_the_sentence_not_of_the_padding(modules):
    with torch.no_grad():
        modules["log_softmax"].mlp.layer0.bias[[PAD, EOS]] = -1e4  # never ends
    lengths = [9, 2, 5]
    states, mask = sources(lengths)
    found = BatchIndependentBeamSearch(**modules, beam_size=3, max_delta_length=4)(
        encoder_hidden_states=states, encoder_input_mask=mask
    )
    assert [len(without_padding(line)) - 1 for line in found] == [13, 6, 9]
    found = BatchIndependentBeamSearch(**modules, beam_size=3, max_delta_length=4, max_sequence_length=8)(
        encoder_hidden_states=states, encoder_input_mask=mask
    )
    assert [len(without_padding(line)) - 1 for line in found] == [8, 6, 8]


def test_an_end_that_comes_first_gives_an_empty_hypothesis(modules):
    with torch.no_grad():
        modules["log_softmax"].mlp.layer0.bias[EOS] = 1e4
    states, mask = sources([3, 2])
    found = BatchIndependentBeamSearch(**modules, beam_size=4)(encoder_hidden_states=states, encoder_input_mask=mask)
    assert [without_padding(line) for line in found] == [[BOS, EOS], [BOS, EOS]]


def test_a_given_start_is_continued(modules):
    states, mask = sources([4, 6])
    search = BatchIndependentBeamSearch(**modules, beam_size=2, len_pen=0.6, max_delta_length=5)
    found = search(torch.tensor([[BOS, 5, 7], [BOS, 9, 9]]), states, mask)
    for row, (length, start) in enumerate([(4, (BOS, 5, 7)), (6, (BOS, 9, 9))]):
        expected = naive_beam_search(modules, states[row, :length], 2, 0.6, limit=length + 5, start=start)
        assert without_padding(found[row]) == without_padding(expected[0][0])


@pytest.mark.parametrize("fail", [False, True])
def test_modes_and_gradient_flags_stay_as_they_were(modules, fail):
    modules["decoder"].layers[0].eval()
    modules["embedding"].token_embedding.weight.requires_grad_(False)
    modules["decoder"].layers[1].train()

    def state() -> list:
        flags = [parameter.requires_grad for module in modules.values() for parameter in module.parameters()]
        return flags + [submodule.training for module in modules.values() for submodule in module.modules()]

    before = state()
    assert len(set(before)) == 2
    states, mask = sources([4, 2])
    search = BatchIndependentBeamSearch(**modules, beam_size=2)
    if fail:
        with pytest.raises(IndexError):
            search(torch.full((2, 1), 99), states, mask)
    else:
        assert search(None, states, mask).requires_grad is False
    assert state() == before


def test_decodes_without_dropout(modules):
    for module in modules.values():
        module.train()
    states, mask = sources([4, 2, 6])
    search = BatchIndependentBeamSearch(**modules, beam_size=3)
    first = search(encoder_hidden_states=states, encoder_input_mask=mask)
    assert first.tolist() == search(encoder_hidden_states=states, encoder_input_mask=mask).tolist()


def test_needs_encoder_states(modules):
    with pytest.raises(ValueError, match="encoder_hidden_states and encoder_input_mask are required"):
        BatchIndependentBeamSearch(**modules)()


def test_repair_keeps_settings_and_state_dict_and_repeats(tiny_model):
    before, keys = vars(tiny_model.beam_search), set(tiny_model.state_dict())
    search = repair_search(tiny_model).beam_search
    assert isinstance(search, BatchIndependentBeamSearch)
    assert vars(search) == before
    assert set(tiny_model.state_dict()) == keys
    assert repair_search(tiny_model).beam_search is search


def test_repair_refuses_sampling(tiny_model):
    tiny_model.replace_beam_with_sampling(topk=5)
    with pytest.raises(InputError, match="decodes with TopKSequenceGenerator"):
        repair_search(tiny_model)


def prepare(model: MTEncDecModel, sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return model.prepare_inference_batch(
        sentences,
        source_processor=model.source_processor,
        target_processor=model.target_processor,
        encoder_tokenizer=model.encoder_tokenizer,
        decoder_tokenizer=model.decoder_tokenizer,
        device="cpu",
    )
