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
"""Teachers and students with a latent representation between encoder and decoder: stock `MTBottleneckModel`s."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from slow_cases import quick

from nemo_distill import DistilledMTBottleneckModel, DistilledMTEncDecModel, cli
from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.data.encoders import mean_latent
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.opening import open_engine
from nemo_distill.errors import ArchiveError, ConfigurationError, ConversionError
from nemo_distill.teachers.cache_format import LogitCache, pair_keys
from nemo_distill.teachers.cache_records import to_levels, values_of
from nemo_distill.teachers.frozen import FrozenTeacher
from nemo_distill.training.repairs import repair_model

# each architecture and each kind of loss, once or more
NO_FILTERS = [f"--max-{name}=off" for name in ("length-ratio", "repeats", "repeated")] + [
    "--keep-cut",
    "--keep-unknown",
]
KINDS = [("seq2seq", "vae"), ("bridge", "nll"), ("perceiver", "mim"), ("max_pool", "nll"), ("avg_pool", "vae")]


@pytest.fixture(scope="module")
def bottleneck(tiny_model_config):
    """A factory of models by `encoder.arch` and `model_type`: widths differ between encoder, latent and decoder."""

    def build(arch: str, model_type: str = "nll", kind: type = MTBottleneckModel, seed: int = 1, **overrides):
        parts = {"encoder.arch": arch, "encoder.hidden_steps": 4, "encoder.hidden_blocks": 1}
        parts |= {"encoder.hidden_init_method": "default", "decoder.hidden_size": 24, "latent_size": 8}
        parts |= {"model_type": model_type, "non_recon_warmup_batches": 100, "max_generation_delta": -1}
        config = tiny_model_config(hidden_size=16, num_layers=1, shared_embeddings=False, **{**parts, **overrides})
        torch.manual_seed(seed)
        model = kind(config).eval()
        model.log_softmax.mlp.layer0.bias.data[model.decoder_tokenizer.pad_id] = -1e4  # which stock NeMo may generate
        return model

    return build


@pytest.fixture(scope="module")
def archives(bottleneck, tmp_path_factory) -> dict[str, Path]:
    """Archives that stock NeMo wrote, by architecture."""
    directory = tmp_path_factory.mktemp("bottleneck")
    for arch, model_type in KINDS:
        bottleneck(arch, model_type).save_to(str(directory / f"{arch}.nemo"))
    return {arch: directory / f"{arch}.nemo" for arch, _ in KINDS}


def found_by(engine, sentences, **settings) -> list:
    found = dict(pair for batch in engine.translate(sentences, SearchSettings(**settings)) for pair in batch)
    return [found[place][0] for place in range(len(sentences))]


@pytest.mark.parametrize(("arch", "model_type"), quick(KINDS, *KINDS[:2]))
def test_decoded_as_by_stock_nemo_whatever_the_batch(archives, tiny_sources, arch, model_type):
    stock = MTBottleneckModel.restore_from(str(archives[arch])).eval()
    stock.beam_search.beam_size, stock.beam_search.max_seq_length = 1, 24
    engine = open_engine(archives[arch])
    model = engine.models[0]
    assert (engine.name, type(model), model.model_type) == ("nemo", MTBottleneckModel, model_type)
    model.decoder.embedding.max_sequence_length = 24
    found = found_by(engine, tiny_sources[:4], search="greedy", max_length_delta=2)
    for sentence, together in zip(tiny_sources[:4], found, strict=True):
        (alone,) = found_by(engine, [sentence], search="greedy", max_length_delta=2)
        assert alone.text == together.text
        assert alone.score == pytest.approx(together.score, rel=1e-5)
        expected = stock.translate([sentence])[0]
        length = min(len(expected), len(alone.text))
        assert length > 5
        assert alone.text[: length - 3] == expected[: length - 3]  # limits count other things


def test_a_hypothesis_is_scored_as_the_model_says(archives, bottleneck, tiny_sources):
    """The sum of its log-probabilities, for one model, and of the mean probability for two with other positions."""
    members = [restore_model(archives["perceiver"]), restore_model(archives["seq2seq"])]
    for models in (members[:1], members):
        engine = NeMoEngine(models)
        for sentence, hypothesis in zip(
            tiny_sources[:2], found_by(engine, tiny_sources[:2], search="greedy", max_length_delta=0), strict=True
        ):
            source = torch.tensor([engine.text.encode([sentence]).ids[0]])
            target = [engine.text.target_tokenizer.bos_id]
            total = 0.0
            for _ in range(hypothesis.length):
                probabilities = []
                for model in models:
                    ids = torch.tensor([target])
                    with mean_latent(model), torch.no_grad():
                        log_probs = model(source, torch.ones_like(source), ids, torch.ones_like(ids))[-1]
                    probabilities.append(log_probs[0, -1].exp())
                mean = torch.stack(probabilities).mean(0)
                mean[[engine.text.target_tokenizer.pad_id]] = 0.0
                target.append(int(mean.argmax()))
                total += math.log(mean.max())
            assert hypothesis.text == engine.text.decode([id_ for id_ in target[1:] if id_ != 3])
            assert hypothesis.score == pytest.approx(total, rel=1e-4)


def test_what_cannot_be_converted_says_so(archives, tmp_path, capsys):
    message = "target: a bottleneck model, whose decoder reads a latent representation"
    with pytest.raises(ConversionError, match=message):
        open_engine(archives["seq2seq"], "ctranslate2")
    with pytest.raises(ConversionError, match=message):
        CTranslate2Engine.from_model(restore_model(archives["perceiver"]))
    assert cli.main(["export", "--model", str(archives["bridge"]), "--output-dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_an_archive_that_nemo_itself_cannot_run(bottleneck, tmp_path):
    bottleneck("").save_to(str(tmp_path / "no_arch.nemo"))
    with pytest.raises(ArchiveError, match="encoder.arch is missing; one of seq2seq, bridge, perceiver, max_pool"):
        read_archive_config(tmp_path / "no_arch.nemo")


class _Trainer:
    """What the terms ask a trainer for."""

    global_step = 30


@pytest.mark.parametrize("computation", ["lean", "plain"])
@pytest.mark.parametrize(
    ("arch", "model_type", "per_token"),
    [("seq2seq", "nll", True), ("perceiver", "mim", True), ("bridge", "vae", True), ("avg_pool", "mim", False)],
)
def test_the_objective_without_a_teacher_is_nemos_loss(
    bottleneck, first_batch, arch, model_type, per_token, computation
):
    """Value and gradient: with `recon_per_token: false` NeMo's, which is a sum over a sentence, by its tokens."""
    objective = {"word_kd": {"weight": 0.0}, "computation": computation}
    section = {"recon_per_token": per_token, "distillation": {"objective": objective}, "data": True}
    student = bottleneck(arch, model_type, DistilledMTBottleneckModel, **section)
    student._trainer = _Trainer()
    batch = first_batch(student)
    torch.manual_seed(5)
    terms = student.distillation_terms(batch)
    mine = torch.autograd.grad(terms["loss"], list(student.parameters()), allow_unused=True)
    torch.manual_seed(5)  # the same latent variable is drawn
    z, mean, log_variance, z_mask, log_probs = student(*batch[:4])
    loss = student.loss(z, mean, log_variance, z_mask, log_probs, *batch[2:], train=True)
    tokens = (batch[4] != student.decoder_tokenizer.pad_id).sum() / len(batch[4])
    loss = loss if per_token else loss / tokens
    nemos = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
    assert terms["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for own, other in zip(mine, nemos, strict=True):
        assert (own is None) == (other is None)
        assert own is None or torch.allclose(own, other, rtol=1e-3, atol=1e-6)
    assert ("latent" in terms) == (model_type != "nll")
    if model_type != "nll":
        assert f"1.0 * Latent({model_type})" in repr(student.objective)
        torch.manual_seed(5)
        student._trainer.global_step = 0  # the warm-up begins
        assert student.distillation_terms(batch)["latent"].item() == 0.0
        _Trainer.global_step = 30


@pytest.mark.parametrize("arch", ["seq2seq", "perceiver", "avg_pool"])
def test_a_live_teacher_gives_what_it_says_at_the_mean(archives, bottleneck, tiny_model_config, first_batch, arch):
    """For a bottleneck student and a plain one; the teacher says the same each time, though NeMo's vae draws."""
    section = {"distillation": {"teacher": {"model_path": str(archives[arch])}}, "data": True}
    plain = tiny_model_config(hidden_size=16, num_layers=1, **section)
    for student in (
        bottleneck("bridge", "vae", DistilledMTBottleneckModel, 2, **section),
        DistilledMTEncDecModel(plain).eval(),
    ):
        assert student._lean
        batch = batch if student.cfg.encoder.get("arch") is None else first_batch(student)  # noqa: F821 - set before
        teacher, real = student._teacher.model, batch[4] != student.decoder_tokenizer.pad_id
        torch.manual_seed(7)
        found = student.distillation_terms(batch)["word_kd"]
        torch.manual_seed(7)
        own = student(*batch[:4])
        log_p = (own[-1] if isinstance(own, tuple) else own)[real]
        hidden, mask = teacher.encoder(input_ids=batch[0], encoder_mask=batch[1], return_mask=True)
        states = teacher.decoder(
            input_ids=batch[2],
            decoder_mask=batch[3],
            encoder_embeddings=teacher.latent2hidden(teacher.hidden2latent_mean(hidden)),
            encoder_mask=mask,
        )
        log_q = teacher.log_softmax(hidden_states=states)[real]
        assert found.item() == pytest.approx((log_q.exp() * (log_q - log_p)).sum(-1).mean().item(), rel=1e-4)


def test_hidden_states_where_positions_are_tokens(archives, bottleneck, first_batch):
    objective = {"hidden": {"weight": 1.0, "encoder": [[0, 0]], "decoder": [[0, 0]]}}
    for arch, fits in (("seq2seq", True), ("perceiver", False)):
        section = {"teacher": {"model_path": str(archives[arch])}, "objective": objective}
        make = lambda section: bottleneck(  # noqa: E731
            "seq2seq", "nll", DistilledMTBottleneckModel, 2, data=True, distillation=section
        )
        if not fits:
            message = r"objective.hidden.encoder: the teacher's encoder \(arch: perceiver\) has positions .* to null"
            with pytest.raises(ConfigurationError, match=message):
                make(section)
            section["objective"] = {"hidden": {"weight": 1.0, "encoder": None, "decoder": [[0, 0]]}}
        student = make(section)
        assert student.distillation_terms(first_batch(student))["hidden"].item() > 0


def test_a_cache_holds_what_the_teacher_says_of_each_sentence_alone(
    archives, tiny_corpus, tiny_model_config, tmp_path
):
    """Pooling makes of a padded sentence something else; the cache has none of that."""
    texts = [str(tiny_corpus / f"valid.{language}") for language in ("de", "en")]
    command = ["cache", "--teacher", str(archives["max_pool"]), "--source", texts[0], "--target", texts[1]]
    command += ["--source-lang", "ignore", "--target-lang", "ignore"]
    assert cli.main([*command, "--output-dir", str(tmp_path / "cache"), "--top-k", "120"]) == 0
    sources, targets = (Path(text).read_text("utf-8").splitlines()[:6] for text in texts)
    teacher, cache = restore_model(archives["max_pool"]), LogitCache(tmp_path / "cache")
    tokenizer, different = teacher.encoder_tokenizer, []
    for pair in zip(sources, targets, strict=True):
        source, target = ([tokenizer.bos_id, *tokenizer.text_to_ids(text), tokenizer.eos_id] for text in pair)
        place = cache.find(pair_keys([(np.array(source), np.array(target))]))
        kept = cache.targets(cache.read(place), 1.0, "cpu")
        said = []
        for padding in (0, 3):
            ids = [torch.tensor([source + [tokenizer.pad_id] * padding]), torch.tensor([target[:-1]])]
            logits = FrozenTeacher(teacher).logits([ids[0], ids[0] != tokenizer.pad_id, ids[1], ids[1] != 0, None])[0]
            rounded = values_of(to_levels(logits - logits.amax(-1, keepdim=True)))
            said.append((rounded.gather(1, kept.ids) == kept.logits).float().mean().item())
        assert said[0] > 0.98  # a few lie between two levels
        different.append(said[1] < 0.9)
    assert any(different)


def test_trained_validated_saved_evaluated_and_taken_for_a_start(
    archives, bottleneck, tiny_model_config, tiny_trainer, tiny_corpus, tmp_path, capsys
):
    """The whole way of a student, whose archive stock NeMo opens; a plain model's validation is mended too."""
    section = {"data": True, "distillation": {"teacher": {"model_path": str(archives["seq2seq"])}}}
    scores = []
    for kind, more in ((DistilledMTBottleneckModel, section), (MTBottleneckModel, {"data": True})):
        trainer = tiny_trainer(2)
        model = bottleneck("seq2seq", "vae", kind, max_generation_delta=2, **more)
        repair_model(model)
        trainer.fit(model)
        scores.append(float(trainer.callback_metrics["val_loss"]))
        losses = []
        with mean_latent(model), torch.no_grad():
            for batch in itertools.chain(*model._validation_dl):
                source, source_mask, target, target_mask, labels = (item.squeeze(0) for item in batch)
                real = labels != model.decoder_tokenizer.pad_id
                log_probs = model.eval()(source, source_mask, target, target_mask)[-1]
                losses.append(-log_probs.gather(2, labels.unsqueeze(2)).squeeze(2)[real])
        assert scores[-1] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
        if kind is DistilledMTBottleneckModel:
            assert "train_latent" in trainer.callback_metrics
            student = tmp_path / "student.nemo"
            model.save_to(str(student))
    assert type(MTEncDecModel.restore_from(str(student))) is MTBottleneckModel
    lines = [(tiny_corpus / f"test.{language}").read_text("utf-8").splitlines(True)[:4] for language in ("de", "en")]
    for language, text in zip(("de", "en"), lines, strict=True):
        (tmp_path / f"t.{language}").write_text("".join(text), "utf-8")
    test = f"t:{tmp_path / 't.de'}:{tmp_path / 't.en'}"
    models = ["--model", str(student), str(archives["perceiver"]), "--test", test]
    assert cli.main(["evaluate", *models, "--output-dir", str(tmp_path / "scores")]) == 0
    cli.main(
        ["speed", *models[:2], "--test", test, "--engines", "nemo", "int8", "--output-dir", str(tmp_path / "speed")]
    )
    assert "a bottleneck model" in (tmp_path / "speed/speed.md").read_text("utf-8")
    cli.main(
        [
            "pseudo-label",
            "--teacher",
            str(student),
            "--input",
            test.split(":")[1],
            "--output-dir",
            f"{tmp_path}/l",
            *NO_FILTERS,
        ]
    )
    assert '"nemo"' in (tmp_path / "l/manifest.json").read_text("utf-8")
    (tmp_path / "student.yaml").write_text("decoder: {num_layers: 1}\n")
    start = [
        "init",
        "--student",
        str(tmp_path / "student.yaml"),
        "--output",
        str(tmp_path / "start.nemo"),
        "--teacher",
    ]
    assert cli.main([*start, str(archives["perceiver"])]) == 2
    assert "has an encoder (arch: perceiver) without a list of NeMo's layers" in capsys.readouterr().err
    assert cli.main([*start, str(student)]) == 0
    started = restore_model(tmp_path / "start.nemo")
    assert type(started) is MTBottleneckModel
    trained = restore_model(student).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in started.state_dict().items())
