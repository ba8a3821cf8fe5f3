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
"""Archives of old releases mean what they meant when they were written."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from old_archives import (
    GENERATIONS,
    LANGUAGES,
    from_many,
    old_section,
    plain_log_probs,
    sentencepiece_model,
    to_many,
    write_old_archive,
    yttm_model,
)

from nemo_distill.archives.generations import Generation, say_old_meanings
from nemo_distill.archives.restore import extract_tokenizers, read_archive_config, restore_model
from nemo_distill.errors import ArchiveError
from nemo_distill.support import compat
from nemo_distill.support.tokenizer_guard import vocabulary_size

SOURCE = torch.tensor([[2, 9, 14, 7, 21, 3], [2, 8, 30, 3, 0, 0]])
TARGET = torch.tensor([[2, 12, 5, 33, 3], [2, 17, 3, 0, 0]])
TOLERANCE = 2e-5
"""Of log-probabilities in float32 against float64: values of some 10, four layers, 2**-23 each."""


def opened_log_probs(path) -> torch.Tensor:
    model = restore_model(path)
    with torch.no_grad():
        found = model(SOURCE, (SOURCE != 0).long(), TARGET, (TARGET != 0).long())
    return found.double()


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """A tokenizer that both lines of NeMo read."""
    return sentencepiece_model()


def without(*keys: str, **more: Any) -> Callable[[dict], None]:
    """Return a change of a section: it lacks these dotted keys, and has `more`."""

    def change(section: dict) -> None:
        for key in keys:
            *path, last = key.split(".")
            inner = section
            for part in path:
                inner = inner[part]
            inner.pop(last, None)
        section.update(more)

    return change


LIBRARIES = ("encoder_tokenizer.library", "decoder_tokenizer.library")
CASES = {
    "1.0.0rc1": ("1.0.0rc1", without("encoder.mask_future"), False),
    "1.0.0": ("1.0.0", without("encoder.mask_future", *LIBRARIES), False),
    "1.2.0": ("1.2.0", without("encoder.mask_future", "encoder.library", "decoder.library"), False),
    "1.5.0": ("1.5.0", without("encoder.mask_future"), False),
    "1.6.0": ("1.5.0", without("encoder.mask_future", shared_embeddings=False), True),
    "1.5.1 by its version": ("1.5.0", without("encoder.mask_future", nemo_version="1.5.1"), False),
    "1.6.0rc0 by its version": ("1.2.0", without("encoder.mask_future", nemo_version="1.6.0rc0"), True),
    "1.10.0 by its version": ("1.2.0", without("encoder.mask_future", nemo_version="1.10.0"), True),
    "2.4.0 by its version": ("1.5.0", without("encoder.mask_future", nemo_version="2.4.0"), True),
    "1.0.0rc1 by its version": ("1.0.0rc1", without("encoder.mask_future", nemo_version="1.0.0rc1"), False),
    "1.0.0rc1 that says it": ("1.0.0rc1", without(), False),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_release(case, pieces, tmp_path):
    generation, change, mask_future = CASES[case]
    path = tmp_path / "old.nemo"
    written = write_old_archive(path, generation, pieces, change, "sentencepiece")
    expected = plain_log_probs(written, SOURCE, TARGET, mask_future)
    assert (opened_log_probs(path) - expected)[TARGET != 0].abs().max() < TOLERANCE
    other = plain_log_probs(written, SOURCE, TARGET, not mask_future)
    assert (other - expected).abs().max() > 500 * TOLERANCE
    config = read_archive_config(path)
    assert config.encoder.mask_future is mask_future
    assert {config[f"{side}_tokenizer"].library for side in ("encoder", "decoder")} == {"sentencepiece"}
    assert not {"train_ds", "optim", "preproc_out_dir"} & config.keys()


def test_keys_that_were_not_read(pieces, tmp_path):
    """NeMo 1.0.0rc1 had two token types whatever was asked for; up to 1.4 the decoder was as wide as the encoder."""
    first, wide = tmp_path / "first.nemo", tmp_path / "wide.nemo"
    written = write_old_archive(
        first, "1.0.0rc1", pieces, lambda section: section["encoder"].update(num_token_types=0), "sentencepiece"
    )
    expected = plain_log_probs(written, SOURCE, TARGET, mask_future=False)
    assert (opened_log_probs(first) - expected)[TARGET != 0].abs().max() < TOLERANCE
    assert read_archive_config(first).encoder.num_token_types == 2
    written = write_old_archive(
        wide, "1.2.0", pieces, lambda section: section["decoder"].update(hidden_size=512), "sentencepiece"
    )
    expected = plain_log_probs(written, SOURCE, TARGET, mask_future=False)
    assert (opened_log_probs(wide) - expected)[TARGET != 0].abs().max() < TOLERANCE
    assert read_archive_config(wide).decoder.hidden_size == 16


def test_what_was_taken_is_kept_when_it_is_saved_again(pieces, tmp_path):
    """NeMo writes its own version into what it saves, and with it the meaning of a missing key would change."""
    old, again = tmp_path / "old.nemo", tmp_path / "again.nemo"
    written = write_old_archive(old, "1.2.0", pieces, without("encoder.mask_future"), "sentencepiece")
    restore_model(old).save_to(str(again))
    expected = plain_log_probs(written, SOURCE, TARGET, mask_future=False)
    assert (opened_log_probs(again) - expected)[TARGET != 0].abs().max() < TOLERANCE
    assert read_archive_config(again).nemo_version.startswith(("1.23", "2."))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_tokenizers_are_told_by_their_bytes(generation, tmp_path):
    """Also where NeMo 2 would take a file without a library for one of SentencePiece."""
    path = tmp_path / "old.nemo"
    write_old_archive(path, generation, change=without(*LIBRARIES))
    found = extract_tokenizers(path, tmp_path / "found")
    assert {each["library"] for each in found.values()} == {"yttm"}
    if compat.NEMO_2:
        with pytest.raises(ArchiveError, match="reads text with YouTokenToMe, but NeMo 2 has dropped YouTokenToMe"):
            restore_model(path)
        return
    model = restore_model(path)
    assert model.encoder_tokenizer_library == "yttm"
    assert model.encoder_tokenizer.ids_to_text(model.encoder_tokenizer.text_to_ids("Die Lampe")) == "Die Lampe"
    assert vocabulary_size("yttm", yttm_model()) == model.encoder_tokenizer.vocab_size


def test_multilingual_archives_of_1_2(tmp_path):
    """Their languages are control symbols of the tokenizer, whose ids stand before the source."""
    symbols = [f"<{language}>" for language in LANGUAGES]
    path = tmp_path / "old.nemo"
    for change, ids in ((to_many, [4, 5, 6]), (from_many, [])):
        write_old_archive(path, "1.2.0", sentencepiece_model(symbols), change, "sentencepiece")
        model = restore_model(path)
        assert list(model.multilingual_ids) == ids
        assert len(model.source_processor_list) == len(LANGUAGES)
        assert len(model.encoder_tokenizer.text_to_ids("<de>")) > 1  # as NeMo has it
    write_old_archive(path, "1.2.0", sentencepiece_model(), to_many, "sentencepiece")
    with pytest.raises(ArchiveError, match="could not be opened as a translation model"):
        restore_model(path)


def test_a_perceiver_whose_latents_look_back_is_refused(pieces, tmp_path):
    def change(section: dict) -> None:
        section["target"] = "nemo.collections.nlp.models.machine_translation.MTBottleneckModel"
        section["encoder"].update(arch="perceiver", hidden_steps=2, hidden_blocks=1)

    path = tmp_path / "old.nemo"
    write_old_archive(path, "1.5.0", pieces, change, "sentencepiece")
    with pytest.raises(ArchiveError, match="let each latent of a perceiver see earlier ones only"):
        read_archive_config(path)


def test_generations_are_told_apart():
    told = {name: Generation.of(old_section(name)) for name in GENERATIONS}
    assert [generation.release for generation in told.values()] == [(1, 0), (1, 5), (1, 5), (1, 5)]
    assert [generation.first for generation in told.values()] == [True, False, False, False]
    for version, release in (("1.7.0", (1, 7)), ("1.23.0rc1", (1, 23)), ("2.4.1", (2, 4)), (1.5, (1, 5))):
        assert Generation.of({"nemo_version": version}).release == release
    for version in (None, "", "main", "${x}", [1, 6], "9" * 10_000):
        assert Generation.of({"nemo_version": version}).release == (1, 5)


def test_any_configuration_can_be_asked():
    """Nobody has checked it yet."""
    odd = [None, 1, "x", [], [1], {}, {"library": 5}, {"hidden_size": 1 << 70_000}, {"arch": []}]
    for encoder, decoder, tokenizer in itertools.product(odd, odd, odd):
        say_old_meanings({"encoder": encoder, "decoder": decoder, "encoder_tokenizer": tokenizer}, {}, False)
