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
"""CTranslate2 translates for the validation of a model, which says what NeMo's modules would say."""

import gc
import re
import tempfile
import weakref

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.data.line_dataset import LineDataset
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.support.compat import lightning
from nemo_distill.training import validation
from nemo_distill.training.multilingual import languages_of_sets
from nemo_distill.training.repairs import repair_model


@pytest.fixture
def restored(tiny_teacher_path, tiny_model_config):
    """A function that returns the trained teacher with its data sets, of a class that is given or NeMo's own."""

    def build(kind: type = MTEncDecModel, **changes) -> MTEncDecModel:
        model = kind(tiny_model_config(data=True, **changes))
        model.load_state_dict(MTEncDecModel.restore_from(str(tiny_teacher_path)).state_dict(), strict=False)
        return repair_model(model)

    return build


@pytest.fixture
def validate(tiny_trainer):
    """A function that validates a model and returns its scores, the translations, and whether they came at the end."""

    def run(model) -> tuple[dict, list[str], bool]:
        results, before = [], validation.eval_epoch_end

        def watched(model, outputs, *arguments) -> None:
            at_end = all("sources" in each for each in outputs)
            assert at_end or all("translations" in each for each in outputs)
            results.append(at_end)
            results.append(list(outputs))
            before(model, outputs, *arguments)

        model.eval_epoch_end = watched.__get__(model)
        scores = tiny_trainer(1).validate(model, verbose=False)[0]
        return scores, [text for each in results[1] for text in each["translations"]], results[0]

    return run


def by_nemo(model) -> list[str]:
    """Translate the validation set batch by batch with NeMo's modules, as without a trainer."""
    model._trainer = None
    (loader,) = model._validation_dl
    with torch.no_grad():
        return [text for batch in loader for text in model.eval_step(batch, 0, "val")["translations"]]


@pytest.mark.parametrize("languages", [{}, {"src_language": "ignore", "tgt_language": "ignore"}])
def test_translations_are_those_of_nemos_modules(restored, validate, languages):
    model = restored(**languages)
    _, translations, at_end = validate(model)
    assert at_end
    assert translations == by_nemo(model)
    assert len(set(translations)) > 5


def test_each_validation_is_of_the_weights_of_its_time(restored, validate):
    model = restored()
    first, _, _ = validate(model)
    for parameter in model.decoder.parameters():
        parameter.data.mul_(0.5)
    second, translations, at_end = validate(model)
    assert at_end
    assert translations == by_nemo(model)
    assert second["val_sacreBLEU"] < first["val_sacreBLEU"]


def test_the_engine_is_gone_when_processes_that_read_data_are_forked(restored, validate, monkeypatch):
    """Freed in a forked process, as garbage, it waits for its threads for ever."""
    references, before = [], CTranslate2Engine._new_translator

    def watched(engine, *arguments, **options):
        translator = before(engine, *arguments, **options)
        references.append(weakref.ref(translator))
        return translator

    monkeypatch.setattr(CTranslate2Engine, "_new_translator", watched)
    model = restored()
    gc.disable()
    try:
        assert validate(model)[2]
        assert references
        assert [reference() for reference in references] == [None] * len(references)
    finally:
        gc.enable()


def test_without_room_for_the_converted_model_nemos_modules_translate(
    restored, validate, monkeypatch, tmp_path, caplog
):
    model = restored()
    scores, translations, _ = validate(model)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
        assert validate(model) == (scores, translations, True)
    assert "NeMo's modules translate for the validation, which takes longer: " in caplog.text


class ReadsTranslations(MTEncDecModel):
    """Looks at what its validation said of each batch."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        """Keep the translations, as a log of examples does."""
        outputs = super().validation_step(batch, batch_idx, dataloader_idx)
        vars(self).setdefault("read", []).extend(outputs["translations"])
        return outputs


class KeepsTranslations(lightning().Callback):
    """Looks at what the validation of any model said of each batch."""

    def __init__(self):
        self.read = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        """Keep the translations, and what a dictionary says of keys that it has not."""
        self.read += outputs.get("translations")
        assert (outputs.get("other", 3), outputs.get("tokens")) == (3, outputs["tokens"])
        with pytest.raises(KeyError, match="other"):
            outputs["other"]


def test_who_reads_the_translations_of_a_batch_has_them(restored, tiny_trainer):
    expected = by_nemo(restored())
    (scores,) = tiny_trainer(1).validate(restored(), verbose=False)
    model = restored(ReadsTranslations)
    assert tiny_trainer(1).validate(model, verbose=False) == [scores]
    assert model.read == expected
    callback = KeepsTranslations()
    trainer = tiny_trainer(1)
    trainer.callbacks.append(callback)
    assert trainer.validate(restored(), verbose=False) == [scores]
    assert callback.read == expected


class TranslatesItself(MTEncDecModel):
    """Translates in a way of its own."""

    def batch_translate(self, src, src_mask, **options):
        """Say the same of each source."""
        inputs, translations = super().batch_translate(src, src_mask, **options)
        return inputs, ["the same"] * len(translations)


def test_a_class_that_translates_in_its_own_way_is_asked(restored, validate):
    changed = restored()
    changed.batch_translate = lambda src, src_mask: ([""] * len(src), ["the same"] * len(src))
    for model in (restored(TranslatesItself), changed):
        _, translations, at_end = validate(model)
        assert not at_end
        assert set(translations) == {"the same"}


def test_a_model_that_does_not_convert_translates_with_nemos_modules(restored, validate):
    model = restored(**{"encoder.hidden_act": "gelu", "decoder.hidden_act": "gelu"})
    assert validate(model)[2]
    model = restored(**{"encoder.mask_future": True})
    _, translations, at_end = validate(model)
    assert not at_end
    assert translations == by_nemo(model)


@pytest.mark.parametrize(
    ("limit", "processes", "read"),
    [
        (1, 1, lambda count: 1),
        (0.5, 1, lambda count: count // 2),
        (0, 1, None),
        (1.0, 1, None),
        (1000, 1, None),
        (1, 3, lambda count: 3),
        (0.5, 2, lambda count: 2 * (-(-count // 2) // 2)),
        (8, 1, lambda count: 8),
        (8, 2, None),  # both read all
    ],
)
def test_who_scores_the_shortest_sentences_alone_is_told(
    restored, tiny_trainer, limit, processes, read, caplog, monkeypatch
):
    model = restored()
    model.set_trainer(tiny_trainer(1, limit_val_batches=limit))
    monkeypatch.setattr(type(model.trainer), "world_size", processes)
    (dataset,) = model._validation_ds
    dataset.tokens_in_batch = 60
    dataset.batchify(model.encoder_tokenizer, model.decoder_tokenizer)
    count = len(dataset)
    assert 8 < count < 16
    validation.check_validation_sets(model)
    told = f"limit_val_batches leaves {read(count) if read else 0} of its {count} batches, which are in the order"
    assert (told in caplog.text, "limit_val_batches leaves" in caplog.text) == (bool(read), bool(read))


@pytest.mark.parametrize("share", [0, 0.2])
def test_training_text_that_the_tokenizer_does_not_know_is_told(
    tiny_model_config, student_config, tiny_corpus, tmp_path, caplog, share
):
    """Where no teacher looks at it."""
    lines = (tiny_corpus / "train.de").read_text("utf-8").splitlines()
    foreign = [line if number % 10 >= 10 * share else f"{line} ж щ" for number, line in enumerate(lines)]
    (tmp_path / "train.de").write_text("\n".join(foreign) + "\n", "utf-8")
    changes = {"train_ds.src_file_name": str(tmp_path / "train.de")}
    with languages_of_sets():  # as `run_training` builds models
        model = MTEncDecModel(tiny_model_config(data=True, **changes))
    validation.warn_of_unknown_text(model)
    found = re.search(r"the training text: of the sources ([\d.]+) % of all tokens are unknown to", caplog.text)
    assert bool(found) == bool(share)
    ids = [id_ for line in foreign for id_ in model.encoder_tokenizer.text_to_ids(line)]
    assert not share or found[1] == f"{100 * ids.count(model.encoder_tokenizer.unk_id) / len(ids):.1f}"
    caplog.clear()
    validation.warn_of_unknown_text(DistilledMTEncDecModel(student_config(**changes)))  # as it begins, by its teacher
    assert "unknown" not in caplog.text


def test_validation_reads_without_bpe_dropout(load_tiny_tokenizer, tiny_corpus, caplog):
    """As what `evaluate` translates; in training it is drawn as the text is read."""
    tokenizer = load_tiny_tokenizer()
    if not hasattr(tokenizer, "bpe_dropout"):
        pytest.skip("this NeMo's tokenizer has none")
    files = (str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en"))

    def ids(training: bool) -> list[list[int]]:
        dataset = LineDataset(*files, training=training, tokens_in_batch=400)
        dataset.batchify(tokenizer, tokenizer)
        return [list(map(int, each)) for number in range(len(dataset)) for each in dataset[number][0]]

    expected = ids(training=False)
    tokenizer.bpe_dropout = 0.5
    assert ids(training=False) == expected
    assert tokenizer.bpe_dropout == 0.5
    assert "BPE dropout" not in caplog.text
    assert ids(training=True) != expected
    assert "BPE dropout is drawn once, as the text is read" in caplog.text


def test_weights_that_are_not_finite_have_no_good_bleu(restored, validate, caplog):
    """CTranslate2's ReLU takes what is no number for 0, and translates on."""
    model = restored()
    assert validate(model)[0]["val_sacreBLEU"] > 50
    model.encoder.encoder.layers[0].second_sub_layer.dense_in.weight.data[0, 0] = float("nan")
    scores, translations, at_end = validate(model)
    assert at_end
    assert scores["val_sacreBLEU"] < 1
    assert translations == by_nemo(model)
    assert "takes longer: the loss is not finite" in caplog.text


def test_a_source_longer_than_the_converted_models_positions(restored, validate, tmp_path, caplog):
    """NeMo makes sinusoids longer as it needs them."""
    (tmp_path / "long.de").write_text("Die Lampe ist offen. " * 240 + "\nDie Lampe ist offen.\n")
    (tmp_path / "long.en").write_text("The lamp is open.\n" * 2)
    texts = {"src": "long.de", "tgt": "long.en"}
    model = restored(**{f"validation_ds.{side}_file_name": str(tmp_path / name) for side, name in texts.items()})
    _, translations, at_end = validate(model)
    assert at_end
    assert translations == by_nemo(model)
    assert "CTranslate2 1026 positions" in caplog.text
