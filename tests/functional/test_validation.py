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
"""Validation scores are those computed offline, sentence by sentence, with one process and with two."""

from pathlib import Path

import pytest
import sacrebleu
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import DictConfig, OmegaConf
from processes import run_processes

from nemo_distill.errors import InputError
from nemo_distill.evaluation import evaluate
from nemo_distill.evaluation.test_sets import TestSet
from nemo_distill.training.repairs import repair_model
from nemo_distill.training.trainer import build_trainer, seed_everything
from nemo_distill.training.validation import check_validation_sets, name_bleu_tokenizers

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}
ROUNDING = 1e-5
"""Of means in float32 of log-probabilities of batches of other shapes; a sentence more or less changes far more."""


@pytest.fixture(scope="module")
def sets(tiny_corpus, tmp_path_factory) -> dict[str, Path]:
    """Validation sets by name: sources; the references lie beside."""
    directory = tmp_path_factory.mktemp("sets")
    sides = [(tiny_corpus / f"valid.{side}").read_text("utf-8").splitlines() for side in ("de", "en")]
    sides[1][::2] = [text.replace("The ", "This ").replace("is ", "was ") for text in sides[1][::2]]  # not perfect
    rows = {
        "many": list(zip(*sides, strict=True))[:9],
        "few": [("Die Pumpe ist kaputt.", "The pump is broken."), ("Der Sensor ist offen.", "")],
        "too_long": [(" ".join(sides[0]), " ".join(sides[1]))],  # cleaning leaves nothing of it
    }
    for name, pairs in rows.items():
        for column, side in enumerate(("de", "en")):
            text = "".join(pair[column] + "\n" for pair in pairs)
            (directory / f"{name}.{side}").write_text(text, encoding="utf-8")
    return {name: directory / f"{name}.de" for name in rows}


@pytest.fixture(scope="module")
def weights(tiny_teacher_path, tmp_path_factory) -> Path:
    """The tiny teacher's weights, disturbed: hypotheses and losses are neither perfect nor alike."""
    model = MTEncDecModel.restore_from(str(tiny_teacher_path))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape, generator=generator)
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def section(tiny_model_config, sets):
    """A function that returns a `model` section with the named validation sets; text is raw, batches are small."""

    def build(*names: str) -> dict:
        config = tiny_model_config(data=True, **{"validation_ds.tokens_in_batch": 60, "validation_ds.clean": True})
        config.beam_size = 2
        config.src_language = config.tgt_language = "ignore"
        config.optim = {"name": "sgd", "lr": 0.0}
        config.validation_ds.src_file_name = [str(sets[name]) for name in names]
        config.validation_ds.tgt_file_name = [str(sets[name].with_suffix(".en")) for name in names]
        return OmegaConf.to_container(config)

    return build


def open_model(section: dict, weights: Path, trainer=None) -> MTEncDecModel:
    model = MTEncDecModel(DictConfig(section), trainer=trainer)
    model.load_state_dict(torch.load(weights))
    return repair_model(model)


def validate(sections: list[dict], weights: Path, devices: int) -> list[dict]:
    """Return what is logged of each section: by `trainer.validate`, and at the end of a fit that changes nothing."""
    found = []
    for section in sections:
        seed_everything(1)
        trainer = build_trainer(OmegaConf.create({**QUIET, "devices": devices}))
        metrics = [trainer.validate(open_model(section, weights, trainer), verbose=False)]
        once = {"max_steps": 1, "val_check_interval": 1, "check_val_every_n_epoch": None}
        trainer = build_trainer(OmegaConf.create({**QUIET, **once, "devices": devices}))
        model = open_model(section, weights, trainer)
        trainer.fit(model)
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in torch.load(weights).items())
        metrics.append([{name: float(value) for name, value in trainer.callback_metrics.items()}])
        # Lightning reports the metrics of several loaders in a list, one item each.
        merged = [{name: value for part in parts for name, value in part.items()} for parts in metrics]
        found.append([{name: value for name, value in each.items() if name.startswith("val_")} for each in merged])
    return found


@pytest.fixture(scope="module")
def offline(section, weights, sets):
    """Loss and BLEU of each set, one sentence at a time; BLEU leaves out sentences without a reference."""
    model = open_model(section("many"), weights).eval()
    found = {}
    for name in ("many", "few"):
        sources, references = (
            sets[name].with_suffix(suffix).read_text("utf-8").splitlines() for suffix in (".de", ".en")
        )
        total = tokens = 0
        for source, reference in zip(sources, references, strict=True):
            ids = [
                torch.tensor([[tokenizer.bos_id, *tokenizer.text_to_ids(text), tokenizer.eos_id]])
                for tokenizer, text in ((model.encoder_tokenizer, source), (model.decoder_tokenizer, reference))
            ]
            with torch.no_grad():
                masks = [torch.ones_like(each) for each in (ids[0], ids[1][:, :-1])]
                log_probs = model(ids[0], masks[0], ids[1][:, :-1], masks[1])
            total -= log_probs[0].double().gather(1, ids[1][0, 1:, None]).sum().item()
            tokens += ids[1].shape[1] - 1
        pairs = [
            (model.translate([source])[0], reference)
            for source, reference in zip(sources, references, strict=True)
            if reference
        ]
        hypotheses, references = zip(*pairs, strict=True)
        found[name] = total / tokens, sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert 1 < found["many"][1] < 99
    return found


@pytest.fixture(scope="module", params=[1, 2], ids=["one_process", "two_processes"])
def logged(request, section, weights):
    """What every process logs of one set, of three, and of the empty one alone."""
    sections = [section("many"), section("many", "few", "too_long"), section("too_long")]
    model = open_model(sections[1], weights)
    batches = [len(dataset) for dataset in model._validation_ds]
    assert batches[0] % 2 == 1  # two processes need one of them again
    assert batches[1:] == [1, 0]  # and one has none of its own
    if request.param == 1:
        return [validate(sections, weights, 1)]
    return run_processes(validate, sections, weights, 2)


def test_one_set(logged, offline):
    loss, bleu = offline["many"]
    for process in logged:
        for metrics in process[0]:
            assert metrics == pytest.approx({"val_loss": loss, "val_sacreBLEU": bleu}, rel=ROUNDING)


def test_agrees_with_the_table(section, weights, tiny_corpus, tmp_path):
    """One search, one criterion: what training logs of a model is what `evaluate` says of it, with either engine.

    Words that are the wrong way round make a small teacher unsure, so that many hypotheses are in play.
    """
    test = TestSet("test", str(tmp_path / "test.de"), str(tmp_path / "test.en"))
    lines = [
        [line for split in ("test", "train") for line in (tiny_corpus / f"{split}.{side}").read_text().splitlines()]
        for side in ("de", "en")
    ]
    sources = [" ".join(line.split()[::-1]) for line in lines[0]]
    Path(test.source).write_text("\n".join(sources[:160]) + "\n")
    Path(test.target).write_text("\n".join(lines[1][:160]) + "\n")
    config = section("many")
    config |= {"beam_size": 4, "len_pen": 0.6}
    config["validation_ds"] |= {"src_file_name": test.source, "tgt_file_name": test.target, "tokens_in_batch": 512}
    trainer = build_trainer(OmegaConf.create(QUIET))
    model = MTEncDecModel(DictConfig(config), trainer=trainer)
    model.load_state_dict(torch.load(weights))
    model.save_to(str(tmp_path / "model.nemo"))
    [logged] = trainer.validate(repair_model(model), verbose=False)
    for engine in ("nemo", "ctranslate2"):
        result = evaluate([tmp_path / "model.nemo"], [test], tmp_path / engine, engine=engine, progress=False)
        assert result.scores[0].bleu == pytest.approx(logged["val_sacreBLEU"], abs=0.1)
    assert 1 < logged["val_sacreBLEU"] < 99


def test_several_sets(logged, offline):
    """A missing reference does not count for BLEU, nor an empty set for the averages."""
    (loss, bleu), (few_loss, few_bleu) = offline["many"], offline["few"]
    wanted = {
        "val_loss": loss,
        "val_sacreBLEU": bleu,
        "val_loss_dl_index_1": few_loss,
        "val_sacreBLEU_dl_index_1": few_bleu,
        "val_loss_avg": (loss + few_loss) / 2,
        "val_sacreBLEU_avg": (bleu + few_bleu) / 2,
    }
    for process in logged:
        for metrics in process[1]:
            assert metrics == pytest.approx(wanted, rel=ROUNDING)


def test_an_empty_set_alone_logs_nothing(logged):
    assert all(metrics == {} for process in logged for metrics in process[2])


def test_references_that_the_tokenizer_does_not_know_are_told_of(section, weights, tmp_path, monkeypatch):
    """They are read back from tokens, so that BLEU was twice that of `evaluate`, and nobody said so."""
    said = []
    monkeypatch.setattr("nemo_distill.training.validation.warn", said.append)
    check_validation_sets(open_model(section("many"), weights))
    assert not said
    for reverse in (False, True):
        config = OmegaConf.create(section("many"))
        side = ("tgt_file_name", "src_file_name")[reverse]
        lines = Path(config.validation_ds[side][0]).read_text("utf-8").splitlines()
        other = tmp_path / f"hebrew.{reverse}"
        other.write_text("".join(f"{line} \u05d0\u05d1\u05d2\n" for line in lines), encoding="utf-8")
        config.validation_ds[side], config.validation_ds.reverse_lang_direction = [str(other)], reverse
        check_validation_sets(open_model(OmegaConf.to_container(config), weights))
        assert "validation set 0: " in said[-1]
        assert "% of its target tokens are unknown to the tokenizer" in said[-1]
    assert len(said) == 2


def test_an_empty_set_is_refused_before_training(section, weights, sets):
    check_validation_sets(open_model(section("many", "few"), weights))
    with pytest.raises(InputError, match=r"validation_ds: no sentence pair of \S+too_long.de is left; leave it out"):
        check_validation_sets(open_model(section("many", "too_long"), weights))


def test_chinese_of_an_archive_without_languages(chinese_model_config, chinese_teacher_path, chinese_corpus, tmp_path):
    """BLEU in validation is sacrebleu's with `zh`, by the script alone; with one or a list, what is asked for."""
    references = (chinese_corpus / "valid.zh").read_text("utf-8").splitlines()
    sources = (chinese_corpus / "valid.de").read_text("utf-8").splitlines()
    weights = tmp_path / "weights.pt"
    torch.save(MTEncDecModel.restore_from(str(chinese_teacher_path)).state_dict(), weights)

    def score(**keys) -> float:
        section = OmegaConf.to_container(chinese_model_config(**keys))
        trainer = build_trainer(OmegaConf.create({**QUIET, "devices": 1}))
        model = open_model(section, weights, trainer)
        check_validation_sets(model)
        [metrics] = trainer.validate(model, verbose=False)
        return metrics["val_sacreBLEU"]

    hypotheses = open_model(OmegaConf.to_container(chinese_model_config()), weights).eval().translate(sources)
    expected = {
        name: sacrebleu.corpus_bleu(hypotheses, [references], tokenize=name).score for name in ("zh", "char", "13a")
    }
    assert expected["zh"] > 5
    assert expected["13a"] == 0
    assert score() == pytest.approx(expected["zh"], abs=1e-4)
    assert score(**{"validation_ds.bleu_tokenizer": "13a"}) == 0
    assert score(**{"validation_ds.bleu_tokenizer": ["char"]}) == pytest.approx(expected["char"], abs=1e-4)
    with pytest.raises(InputError, match="model.validation_ds.bleu_tokenizer: got '14a'; sacreBLEU has "):
        score(**{"validation_ds.bleu_tokenizer": "14a"})
    with pytest.raises(InputError, match="model.validation_ds.bleu_tokenizer: got 0 for more sets; give one, or"):
        score(**{"validation_ds.bleu_tokenizer": []})


@pytest.mark.parametrize(
    ("language", "data", "own", "expected"),
    [
        ("ignore", {"target": "zh"}, None, "zh"),
        ("ignore", {"target": "de"}, None, None),
        ("ignore", None, None, None),
        ("ja", {"target": "zh"}, None, "ja-mecab"),
        ("ja", {"target": "zh", "bleu_tokenizer": "char"}, None, "char"),
        ("ja", {"target": "zh", "bleu_tokenizer": "char"}, "flores200", "flores200"),
        (["de", "en"], {"target": "ko"}, None, "ko-mecab"),
    ],
)
def test_the_tokenizer_of_a_run(language, data, own, expected):
    config = {"model": {"tgt_language": language, "validation_ds": {"bleu_tokenizer": own}, "test_ds": None}}
    config |= {"data": data} if data else {}
    name_bleu_tokenizers(config)
    assert config["model"]["validation_ds"].get("bleu_tokenizer") == expected
    assert config["model"]["test_ds"] is None
