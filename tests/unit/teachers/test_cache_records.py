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
"""What a cache keeps of a distribution: in how many bits, and drawn so that the mean over draws is the whole."""

import numpy as np
import pytest
import torch
from nemo.utils import logging

from nemo_distill import DistilledMTEncDecModel, cli
from nemo_distill.errors import InputError
from nemo_distill.losses import SampledTargets, WordLevelKDLoss
from nemo_distill.losses.top_k import kept_loss
from nemo_distill.teachers import cache_shards
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_records import LEVELS, Records, to_levels, uniform_numbers, values_of
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

TEMPERATURES = (1.0, 2.0, 5.0)
DRAWS = 4096


@pytest.mark.parametrize("vocabulary_size", [2, 3, 128, 129, 4000, 32000, 250_000, (1 << 31) - 1])
@pytest.mark.parametrize("words", [1, 2, 7, 16])
def test_words_take_the_bits_that_they_need(vocabulary_size, words):
    records = Records(words, 0, [1.0, 2.0], vocabulary_size)
    assert records.dtype.itemsize == -(-words * ((vocabulary_size - 1).bit_length() + 7) // 8) + 4
    generator = np.random.default_rng(words)
    ids, levels = generator.integers(0, vocabulary_size, (50, words)), generator.integers(0, 128, (50, words))
    ids[0], ids[1] = vocabulary_size - 1, 0
    packed = records._pack((ids << 7) | levels)
    assert packed.shape == (50, records.dtype["words"].shape[0])
    found = records.unpack(torch.from_numpy(packed))
    assert np.array_equal(found[0], ids)
    assert np.array_equal(found[1], levels)


def test_fifty_words_of_a_large_vocabulary():
    """114 bytes is what DistillKit stores of 50 words; here with 7 bits a logit in place of its polynomial."""
    assert Records(50, 0, [1.0], 32_000).dtype.itemsize == 140
    assert Records(50, 0, [1.0], 4_000).dtype.itemsize == 121
    assert Records(8, 16, [1.0, 2.0], 4_000).dtype.itemsize == 63


def test_levels_are_near_where_shares_are_large():
    assert (np.diff(LEVELS) < 0).all()
    assert torch.equal(to_levels(values_of(torch.arange(128))), torch.arange(128).to(torch.uint8))
    logits = -torch.linspace(0, 32, 100_000, dtype=torch.float64)
    error = (values_of(to_levels(logits)).double() - logits).abs()
    assert (error <= 0.0013 + 0.051 * (-logits).sqrt()).all()  # half a step, of the square root of 32 / 111 ** 2
    far = -torch.logspace(1.51, 4.8, 1000)
    assert ((values_of(to_levels(far)) / far).log().abs() <= 0.24).all()  # half of the factor 1.61


@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_what_is_left_out_is_counted_by_the_logits_as_they_are(top_k):
    """Also where the worst word that is kept was rounded to below it: no fault of the cache."""
    levels = values_of(torch.arange(128)).double()
    between = levels[:-1] * 0.45 + levels[1:] * 0.55  # rounded down
    logits = between[:, None].expand(-1, 60).clone()
    logits[:, 0] = 0
    records = Records(top_k, 0, TEMPERATURES, 60)
    encoded = records.encode(logits)
    assert records.fault(encoded) is None
    for column, temperature in enumerate(TEMPERATURES):
        rest = (logits[:, top_k:] / temperature).logsumexp(-1)
        found = torch.from_numpy(encoded["rest"][:, column].astype(np.float64)) / 512
        torch.testing.assert_close(found, rest.clamp(min=-64), atol=1 / 1024 + 1e-4, rtol=0)  # half a step; float32


@pytest.fixture(scope="module")
def drawn():
    """Records of one distribution over 60 words, drawn with 4,096 numbers that share out 0 to 1 evenly."""
    logits = torch.randn(1, 60, generator=torch.Generator().manual_seed(3)).mul(4).expand(DRAWS, 60)
    records = Records(3, 6, TEMPERATURES, 60)
    rounded = values_of(to_levels(logits[0] - logits[0].max())).double()
    return records, records.encode(logits, (np.arange(DRAWS) + 0.5) / DRAWS), rounded


@pytest.mark.parametrize("column", [0, 1, 2])
def test_the_mean_over_all_draws_is_the_whole_distribution(drawn, column):
    records, encoded, rounded = drawn
    targets = records.targets(encoded, column, "cpu")
    estimates = targets.weights.double() * targets.log_shares.double().exp()
    mean = torch.zeros(60, dtype=torch.float64).index_add_(0, targets.ids.flatten(), estimates.flatten()) / DRAWS
    wanted = (rounded / TEMPERATURES[column]).softmax(-1)
    # A word is drawn in one or two intervals of the number, whose ends fall between two of those that were tried; what
    # is left is a logarithm's step of 1 / 512.
    bound = 4 * estimates.max(0).values.max() / DRAWS
    torch.testing.assert_close(mean, wanted, atol=bound.item(), rtol=2e-3)
    assert (mean[wanted.argsort()[:30]] > 0).all()  # the unlikely half is not left out
    assert estimates[:, 3:].max() <= 3 * (1 - wanted.topk(3).values.sum()) / 3  # no large weights, of 3 temperatures


@pytest.mark.parametrize("column", [0, 1, 2])
def test_the_mean_gradient_over_all_draws_is_that_of_the_whole(drawn, column):
    records, encoded, rounded = drawn
    kd = WordLevelKDLoss(TEMPERATURES[column])
    student = torch.randn(60, generator=torch.Generator().manual_seed(4), dtype=torch.float64).mul(3).requires_grad_()
    mask, found = torch.ones(1, DRAWS, dtype=torch.bool), []
    for targets in (records.targets(encoded, column, "cpu"), None):
        logits = student.expand(1, DRAWS, 60)
        if targets is None:
            loss = kd(student_logits=logits, teacher_logits=rounded.expand(1, DRAWS, 60), mask=mask)
        else:
            loss = kept_loss(student_logits=logits, targets=targets, mask=mask, kd=kd)
        found.append((loss.detach(), torch.autograd.grad(loss, student)[0]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-2, atol=0)
    error = (found[0][1] - found[1][1]).norm() / found[1][1].norm()
    assert error < 1e-2  # where one draw alone is far off:
    one = records.targets(encoded[:1], column, "cpu")
    loss = kept_loss(student_logits=student.expand(1, 1, 60), targets=one, mask=mask[:, :1], kd=kd)
    assert (torch.autograd.grad(loss, student)[0] - found[1][1]).norm() > 5 * error * found[1][1].norm()


@pytest.mark.parametrize("column", [0, 1, 2])
def test_the_noise_of_the_draws_is_known_from_them(drawn, column):
    """The mean of its estimates is the mean squared distance between weighted shares and the whole distribution."""
    records, encoded, rounded = drawn
    targets, wanted = records.targets(encoded, column, "cpu"), (rounded / TEMPERATURES[column]).softmax(-1)
    estimates = torch.zeros(DRAWS, 60, dtype=torch.float64)
    estimates.scatter_add_(1, targets.ids, targets.weights.double() * targets.log_shares.double().exp())
    distances, noise = (estimates - wanted).square().sum(1), targets.noise()
    # As above: the share of draws in which a word is there is found to 4 / DRAWS; it then adds at most its square.
    largest = torch.zeros(60, dtype=torch.float64).scatter_reduce_(
        0, targets.ids.flatten(), estimates.gather(1, targets.ids).square().flatten(), "amax"
    )
    bound = 4 * largest[rounded.argsort()[:-3]].sum() / DRAWS
    torch.testing.assert_close(noise.mean(), distances.mean(), atol=bound.item(), rtol=4e-3)
    assert noise.mean() > 5 * bound


def test_the_noise_in_float64():
    """One of four words, by their chances: the sum over outcomes is the variance, in closed form."""
    chances = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    q = torch.tensor([0.25, 0.4, 0.05, 0.3], dtype=torch.float64)
    one = torch.ones(4, 1).double()
    ids = torch.cat([torch.zeros(4, 1), torch.arange(1, 5)[:, None]], 1).long()
    targets = SampledTargets(ids, torch.cat([one * 0, q.log()[:, None]], 1), torch.cat([one, 1 / chances[:, None]], 1))
    mean = (targets.noise() * chances).sum()
    torch.testing.assert_close(mean, (q.square() * (1 / chances - 1)).sum(), atol=1e-12, rtol=1e-12)


def test_the_closed_form_in_float64():
    """Two words for certain and one of four others: the mean over the four outcomes by their chances is exact."""
    generator = torch.Generator().manual_seed(0)
    z, w = (torch.randn(6, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    w.requires_grad_()
    chances, order = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64), z.argsort(descending=True)
    for temperature in TEMPERATURES:
        kd, log_q = WordLevelKDLoss(temperature), (z / temperature).log_softmax(-1)
        ids = torch.stack([torch.tensor([order[0], order[1], order[2 + each]]) for each in range(4)])
        weights = torch.stack([torch.ones(4), torch.ones(4), 1 / chances], dim=1).double()
        targets, mask = SampledTargets(ids, log_q[ids], weights), torch.ones(1, 1).bool()
        losses = [
            kept_loss(student_logits=w[None, None], targets=targets[each : each + 1], mask=mask, kd=kd)
            for each in range(4)
        ]
        mean = (torch.stack(losses) * chances).sum()
        whole = kd(student_logits=w[None, None], teacher_logits=z[None, None], mask=mask)
        torch.testing.assert_close(mean, whole, atol=1e-12, rtol=1e-12)
        gradients = [torch.autograd.grad(each, w)[0] for each in (mean, whole)]
        torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)


def test_numbers_come_from_the_key_alone():
    keys = np.random.default_rng(0).integers(0, 1 << 64, (3, 2), dtype=np.uint64)
    numbers = uniform_numbers(keys, [4, 2, 5])
    assert len(numbers) == len(set(numbers)) == 11
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.array_equal(uniform_numbers(keys[1:], [2, 5]), numbers[4:])
    assert np.array_equal(uniform_numbers(keys[2:], [3]), numbers[6:9])
    assert len(uniform_numbers(keys[:0], [])) == 0


@pytest.fixture(scope="module")
def sampled_cache(tiny_corpus, tiny_teacher_path, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sampled") / "cache"
    text = [(str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))]
    settings = CacheSettings(4, TEMPERATURES, shard_tokens=800, sampled=8)
    write_cache([str(tiny_teacher_path)], text, directory, settings)
    return [str(tiny_teacher_path)], text, directory, settings


def test_an_interrupted_cache_draws_the_same_words(sampled_cache, tmp_path, monkeypatch):
    teachers, text, directory, settings = sampled_cache
    write, done = cache_shards._write_shard, []

    def write_one(*arguments):
        if done:
            raise KeyboardInterrupt
        write(*arguments)
        done.append(True)

    monkeypatch.setattr(cache_shards, "_write_shard", write_one)
    with pytest.raises(KeyboardInterrupt):
        write_cache(teachers, text, tmp_path / "cache", settings)
    monkeypatch.undo()
    write_cache(teachers, text, tmp_path / "cache", settings)
    wanted = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*.*") if path.is_file()}
    assert {each: (tmp_path / "cache" / each).read_bytes() for each in wanted} == wanted
    with pytest.raises(InputError, match="made with .*sampled 8 .*not 9|made with .*sampled"):
        write_cache(teachers, text, tmp_path / "cache", CacheSettings(4, TEMPERATURES, shard_tokens=800, sampled=9))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_learns_alike_in_both_computations(sampled_cache, student_config, first_batch, temperature):
    found = []
    for computation in ("lean", "plain"):
        config = student_config(objective={"word_kd": {"temperature": temperature}, "computation": computation})
        config.distillation.teacher = {"cache": str(sampled_cache[2])}
        torch.manual_seed(0)
        student = DistilledMTEncDecModel(config).eval()
        terms = student.distillation_terms(first_batch(student))
        terms["loss"].backward()
        found.append((terms, [p.grad for p in student.parameters()]))
    for name, wanted in found[1][0].items():
        torch.testing.assert_close(found[0][0][name], wanted, atol=1e-4, rtol=1e-4)
    for gradient, wanted in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("weight", "is_scaled", "warns"), [(1.0, True, True), (1.0, False, False), (0.01, True, False)]
)
def test_draws_that_drown_the_gradient_are_told_of(
    sampled_cache, student_config, monkeypatch, weight, is_scaled, warns
):
    hottest = TEMPERATURES[-1]
    kd = {"temperature": hottest, "weight": weight, "scale_by_temperature": is_scaled}
    config = student_config(objective={"word_kd": kd})
    config.distillation.teacher = {"cache": str(sampled_cache[2])}
    told = []
    monkeypatch.setattr(logging, "warning", lambda text, *rest, **options: told.append(str(text)))
    DistilledMTEncDecModel(config)
    noise = weight * LogitCache(sampled_cache[2]).gradient_noise(hottest)
    found = [each for each in told if "add noise of" in each]
    assert len(found) == warns
    if warns:
        assert f"at temperature {hottest:g} the 8 drawn words" in found[0]
        assert f"noise of {noise:.1f} to" in found[0]


def test_the_verb_tells_the_noise_at_each_temperature(sampled_cache, tmp_path, capsys):
    teachers, ((source, target),), _, _ = sampled_cache
    command = ["cache", "--teacher", *teachers, "--source", source, "--target", target]
    command += ["--top-k", "4", "--sampled", "8", "--temperatures", "1", "2", "5"]
    command += ["--output-dir", str(tmp_path / "cache")]
    assert cli.main(command) == 0
    cache = LogitCache(tmp_path / "cache")
    noise = [f"{cache.gradient_noise(each):.2f} at {each:g}" for each in TEMPERATURES]
    assert len(set(noise)) == 3
    assert capsys.readouterr().out.endswith(f"by temperature: {', '.join(noise)}\n")


def test_what_the_cache_misses_is_drawn_as_in_the_cache(sampled_cache, student_config, first_batch, monkeypatch):
    teachers, _, directory, _ = sampled_cache
    config = student_config()
    config.distillation.teacher = {"cache": str(directory), "model_path": teachers[0], "on_miss": "teacher"}
    student = DistilledMTEncDecModel(config).eval()
    batch = first_batch(student)
    wanted = student._teacher.outputs(batch).signal
    find = LogitCache.find
    monkeypatch.setattr(
        LogitCache, "find", lambda self, keys: np.where(np.arange(len(keys)) % 2, find(self, keys), -1)
    )
    found = student._teacher.outputs(batch).signal
    same = (found.ids.sort(1).values == wanted.ids.sort(1).values).all(1)  # a logit may lie between two levels
    assert same.float().mean() > 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampled": -1}, "sampled is -1; give 0 or more"),
        ({"sampled": 105}, "top k is 24 and sampled 105, together above the 120 words .* at most 96 of the latter"),
    ],
)
def test_settings_that_cannot_be(settings, message, sampled_cache, tmp_path):
    teachers, text, _, _ = sampled_cache
    with pytest.raises(InputError, match=message):
        write_cache(teachers, text, tmp_path / "c", CacheSettings(**settings))
