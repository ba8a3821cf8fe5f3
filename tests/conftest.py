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
"""Shared fixtures: a small corpus of our own, its tokenizer, a tiny model configuration, a tiny trained teacher.

Heavy imports stay inside the fixtures, so that tests of light modules start at once.
"""

import functools
import itertools
import json
import os
import random
import runpy
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import nemo_distill  # noqa: F401  before any test imports NeMo, which then loads no compiler

FOREIGN_MODELS = Path(__file__).parent / "unit/decoding/foreign_models.py"

# a shell that starts the tests in the background has these ignored, and so would all programs that they start
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs where neither `-m gpu` nor a benchmark asks for them: the other tests compare with sums of the CPU."""
    if "gpu" not in config.option.markexpr and not any("benchmarks" in each for each in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


THINGS = [
    ("die Lampe", "the lamp"),
    ("die Tür", "the door"),
    ("das Fenster", "the window"),
    ("der Motor", "the motor"),
    ("die Pumpe", "the pump"),
    ("das Radio", "the radio"),
    ("der Sensor", "the sensor"),
    ("die Heizung", "the heating"),
]
PLACES = [
    ("in der Küche", "in the kitchen"),
    ("im Keller", "in the basement"),
    ("im Garten", "in the garden"),
    ("neben dem alten Turm", "beside the old tower"),
    ("unter der langen Brücke am Fluss", "under the long bridge by the river"),
    ("", ""),
]
STATES = [
    ("ist offen", "is open"),
    ("ist kaputt", "is broken"),
    ("läuft seit gestern", "has been running since yesterday"),
    ("wurde heute repariert", "was repaired today"),
    ("braucht neue Teile", "needs new parts"),
]

CHINESE = (
    ("灯", "门", "窗户", "马达", "水泵", "收音机", "传感器", "暖气"),
    ("在厨房里", "在地下室", "在花园里", "在古塔旁边", "在河边的长桥下面", ""),
    ("开着", "坏了", "从昨天起一直运行", "今天修好了", "需要新的零件"),
)
"""THINGS, PLACES and STATES in Chinese."""


def synthetic_pairs(count: int = 200) -> list[tuple[str, str]]:
    """Return `count` different German-English pairs, one to twelve words long, always in the same order."""
    pairs = []
    for (thing_de, thing_en), (place_de, place_en), (state_de, state_en) in itertools.product(THINGS, PLACES, STATES):
        german = " ".join(f"{thing_de} {place_de} {state_de}.".split())
        english = " ".join(f"{thing_en} {place_en} {state_en}.".split())
        pairs.append((german[0].upper() + german[1:], english[0].upper() + english[1:]))
    random.Random(1).shuffle(pairs)
    return pairs[:count]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep torch on one thread: results repeat, and tests do not fight over cores."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus directory: train (160 pairs), valid (20) and test (20), German and English."""
    directory = tmp_path_factory.mktemp("corpus")
    pairs = synthetic_pairs(200)
    for split, part in (("train", pairs[:160]), ("valid", pairs[160:180]), ("test", pairs[180:])):
        for column, language in enumerate(("de", "en")):
            text = "".join(pair[column] + "\n" for pair in part)
            (directory / f"{split}.{language}").write_text(text, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def foreign_model(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """A function that returns the directory of a tiny model of `transformers`: `foreign_model("marian")`."""
    models = runpy.run_path(str(FOREIGN_MODELS))
    texts = [line for side in ("de", "en") for line in (tiny_corpus / f"train.{side}").read_text("utf-8").splitlines()]
    place = tmp_path_factory.mktemp("foreign")
    return cache(lambda family: models["build"](family, place / family, texts))


@pytest.fixture(scope="session")
def tiny_pseudo(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as `nemo-distill pseudo-label` leaves it: the training sources, and hypotheses of their own."""
    directory = tmp_path_factory.mktemp("pseudo")
    gold = (tiny_corpus / "train.en").read_text("utf-8")
    (directory / "source.txt").write_text((tiny_corpus / "train.de").read_text("utf-8"), encoding="utf-8")
    (directory / "hypotheses.txt").write_text(gold.replace("The ", "This "), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def train_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """A function that trains a tokenizer of NeMo's default library, always the same for the same texts and size."""
    from nemo_distill.data import tokenizer
    from nemo_distill.support import compat

    def train(texts: Sequence[str | Path], vocab_size: int) -> Path:
        directory = tmp_path_factory.mktemp("tokenizer")
        if compat.DEFAULT_TOKENIZER_LIBRARY != "yttm":
            tokenizer.train(texts, vocab_size, directory)
            return directory / tokenizer.MODEL
        import youtokentome

        text, model = directory / "text", directory / f"tokenizer.{vocab_size}.BPE.model"
        text.write_text("".join(Path(path).read_text("utf-8") for path in texts), "utf-8")
        # the threads of `tokenizer.train` race for pairs of equal frequency
        youtokentome.BPE.train(data=str(text), vocab_size=vocab_size, model=str(model), n_threads=1)
        return model

    return train


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_corpus: Path, train_tokenizer: Callable) -> Path:
    """A model of 120 pieces, shared by both languages, of NeMo's default library."""
    return train_tokenizer([tiny_corpus / f"train.{language}" for language in ("de", "en")], 120)


@pytest.fixture(scope="session")
def load_tiny_tokenizer(tiny_tokenizer: Path) -> Callable:
    """A function that loads the tiny tokenizer as NeMo does: `load_tiny_tokenizer()`."""
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    from nemo_distill.data.tokenizer import library_of

    return lambda: get_nmt_tokenizer(library=library_of(tiny_tokenizer), tokenizer_model=str(tiny_tokenizer))


@pytest.fixture(scope="session")
def tiny_tarred(tiny_corpus: Path, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Metadata of the training pairs as a tarred set that NeMo wrote: shards of four batches, and one of the rest."""
    from nemo.collections.nlp.data.machine_translation.preproc_mt_data import MTDataPreproc

    from nemo_distill.data.tokenizer import library_of

    directory = tmp_path_factory.mktemp("tarred")
    sides = {}
    for side in ("encoder", "decoder"):
        sides |= {f"{side}_tokenizer_name": library_of(tiny_tokenizer), f"{side}_tokenizer_model": str(tiny_tokenizer)}
        sides |= {f"{side}_tokenizer_r2l": False, f"{side}_bpe_dropout": 0.0, f"{side}_model_name": None}
    count, _ = MTDataPreproc.write_parallel_batches_to_tarfiles(
        str(directory), 4, False, 64, 1, str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"), 400, **sides,
        fragment_index=0,
    )  # fmt: skip
    shards = sorted(directory.glob("*.tar"))
    assert count % 4
    metadata = directory / "metadata.tokens.400.json"
    metadata.write_text(
        json.dumps({"num_batches": count, "tar_files": [f"/elsewhere/{path.name}" for path in shards]})
    )
    return metadata


@pytest.fixture(scope="session")
def tiny_model_config(tiny_corpus: Path, tiny_tokenizer: Path) -> Callable:
    """A factory of `model` sections: `tiny_model_config(hidden_size=16, **{"encoder.num_layers": 1})`.

    `data=True` adds train and validation data sets. Other keywords are dotted keys of the section.
    """
    from omegaconf import DictConfig, OmegaConf

    from nemo_distill.data.tokenizer import library_of

    def dataset(split: str, shuffle: bool) -> dict:
        return {
            "src_file_name": str(tiny_corpus / f"{split}.de"),
            "tgt_file_name": str(tiny_corpus / f"{split}.en"),
            "tokens_in_batch": 400,
            "clean": False,
            "max_seq_length": 64,
            "shuffle": shuffle,
            "num_workers": 0,
        }

    def build(hidden_size: int = 32, num_layers: int = 2, data: bool = False, **overrides) -> DictConfig:
        transformer = {
            "library": "nemo",
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "inner_size": 2 * hidden_size,
            "num_attention_heads": 2,
            "max_sequence_length": 64,
            "num_token_types": 0,
            "embedding_dropout": 0.1,
            "ffn_dropout": 0.1,
            "attn_score_dropout": 0.1,
            "attn_layer_dropout": 0.1,
            "hidden_act": "relu",
            "pre_ln": True,
            "pre_ln_final_layer_norm": True,
        }
        tokenizer = {"library": library_of(tiny_tokenizer), "tokenizer_model": str(tiny_tokenizer), "bpe_dropout": 0.0}
        section = {
            "src_language": "de",
            "tgt_language": "en",
            "shared_tokenizer": True,
            "shared_embeddings": True,
            "label_smoothing": 0.0,
            "beam_size": 4,
            "len_pen": 0.6,
            "max_generation_delta": 20,
            "encoder_tokenizer": dict(tokenizer),
            "decoder_tokenizer": dict(tokenizer),
            "encoder": {**transformer, "mask_future": False},
            "decoder": dict(transformer),
            "head": {
                "num_layers": 1,
                "activation": "relu",
                "log_softmax": True,
                "dropout": 0.0,
                "use_transformer_init": True,
            },
            "optim": {"name": "adam", "lr": 2e-3},
        }
        if data:
            section["train_ds"] = dataset("train", shuffle=True)
            section["validation_ds"] = dataset("valid", shuffle=False)
        config = OmegaConf.create(section)
        for key, value in overrides.items():
            OmegaConf.update(config, key, value, force_add=True)
        return config

    return build


def train_in_place(model, steps: int, learning_rate: float = 3e-3) -> None:
    """Train on the data of the model's own section with a plain Adam loop; leave the model in eval mode."""
    import torch

    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    batches = itertools.chain.from_iterable(itertools.repeat(model._train_dl))
    for batch in itertools.islice(batches, steps):
        source, source_mask, target, target_mask, labels = (tensor.squeeze(0) for tensor in batch)
        log_probabilities = model(source, source_mask, target, target_mask)
        loss = model.loss_fn(log_probs=log_probabilities, labels=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="session")
def tiny_teacher_path(tiny_model_config: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock `MTEncDecModel` archive, hidden size 32, two layers, trained for 300 steps on the tiny corpus."""
    import torch
    from nemo.collections.nlp.models import MTEncDecModel

    torch.manual_seed(0)
    model = MTEncDecModel(tiny_model_config(data=True))
    train_in_place(model, steps=300)
    path = tmp_path_factory.mktemp("teacher") / "teacher.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture(scope="session")
def unnamed_teacher_path(tiny_teacher_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny teacher as an archive that names no languages, as those of NeMo 1.0.0rc1."""
    from nemo_distill.archives.restore import restore_model

    model = restore_model(tiny_teacher_path)
    model.cfg.src_language = model.cfg.tgt_language = None
    path = tmp_path_factory.mktemp("unnamed") / "unnamed.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture(scope="session")
def exported(tiny_teacher_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the tiny teacher, in float32; a test that changes one copies it."""
    from nemo_distill.decoding.exporting import export

    directory = tmp_path_factory.mktemp("export") / "student"
    export(tiny_teacher_path, directory)
    return directory


@pytest.fixture(scope="session")
def chinese_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The German of `tiny_corpus` and Chinese: train (160 pairs), valid (20) and test (20)."""
    chinese = ["".join(parts) + "。" for parts in itertools.product(*CHINESE)]
    random.Random(1).shuffle(chinese)
    pairs = [(german, line) for (german, _), line in zip(synthetic_pairs(200), chinese[:200], strict=True)]
    directory = tmp_path_factory.mktemp("chinese")
    for split, part in (("train", pairs[:160]), ("valid", pairs[160:180]), ("test", pairs[180:])):
        for column, language in enumerate(("de", "zh")):
            (directory / f"{split}.{language}").write_text("".join(pair[column] + "\n" for pair in part), "utf-8")
    return directory


@pytest.fixture(scope="session")
def chinese_model_config(tiny_model_config: Callable, chinese_corpus: Path, train_tokenizer: Callable) -> Callable:
    """A factory of `model` sections as `tiny_model_config`, from German into Chinese, both languages `ignore`."""
    texts = [chinese_corpus / f"train.{language}" for language in ("de", "zh")]
    tokenizer = train_tokenizer(texts, 180)

    def build(**overrides):
        keys = {f"{side}_tokenizer.tokenizer_model": str(tokenizer) for side in ("encoder", "decoder")}
        keys |= {"src_language": "ignore", "tgt_language": "ignore"}
        for name, split in (("train_ds", "train"), ("validation_ds", "valid")):
            keys |= {f"{name}.src_file_name": str(chinese_corpus / f"{split}.de")}
            keys |= {f"{name}.tgt_file_name": str(chinese_corpus / f"{split}.zh")}
        return tiny_model_config(data=True, **{**keys, **overrides})

    return build


@pytest.fixture(scope="session")
def chinese_teacher_path(chinese_model_config: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive like that of `tiny_teacher_path` that translates German into Chinese, not without mistakes."""
    import torch
    from nemo.collections.nlp.models import MTEncDecModel

    torch.manual_seed(0)
    model = MTEncDecModel(chinese_model_config())
    train_in_place(model, steps=120)
    path = tmp_path_factory.mktemp("chinese_teacher") / "chinese.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture
def tiny_model(tiny_teacher_path: Path):
    """The trained tiny model, fresh for each test, in eval mode."""
    from nemo.collections.nlp.models import MTEncDecModel

    return MTEncDecModel.restore_from(str(tiny_teacher_path)).eval()


@pytest.fixture(scope="session")
def random_model(tiny_model_config: Callable) -> Callable:
    """A factory of untrained models in eval mode; biases and norms are random too, so nothing is equal by chance.

    `random_model(seed, heads=4, inner=32, hidden_size=16)`: other keywords are those of `tiny_model_config`.
    """
    import torch
    from nemo.collections.nlp.models import MTEncDecModel

    def build(seed: int, heads: int = 2, inner: int | None = None, **overrides):
        sizes = {f"{side}.num_attention_heads": heads for side in ("encoder", "decoder")}
        sizes |= {f"{side}.inner_size": inner for side in ("encoder", "decoder")} if inner else {}
        torch.manual_seed(seed)
        model = MTEncDecModel(tiny_model_config(**{**sizes, **overrides})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.normal_(std=0.5)
        return model

    return build


@pytest.fixture(scope="session")
def tiny_sources(tiny_corpus: Path) -> list[str]:
    """The German test sentences of the tiny corpus."""
    return (tiny_corpus / "test.de").read_text("utf-8").splitlines()


@pytest.fixture(scope="session")
def student_config(tiny_model_config: Callable, tiny_teacher_path: Path) -> Callable:
    """A factory of student `model` sections: one layer, hidden size 16, with data, taught by the tiny teacher.

    `student_config(objective={"word_kd": {"weight": 0}}, label_smoothing=0.1)`: keywords are keys of the
    `distillation` section, others are dotted keys of the model section.
    """

    def build(
        hidden_size: int = 16, num_layers: int = 1, data: bool = True, objective=None, capture=None, **overrides
    ):
        section = {"teacher": {"model_path": str(tiny_teacher_path)}}
        section |= {"objective": objective} if objective else {}
        section |= {"capture": capture} if capture else {}
        overrides = {"distillation": section, **overrides}
        return tiny_model_config(hidden_size=hidden_size, num_layers=num_layers, data=data, **overrides)

    return build


@pytest.fixture(scope="session")
def smooth_student_config(student_config: Callable) -> Callable:
    """`student_config` of models without ReLU, for weights of two trainings that are compared but for roundings.

    The slope of a ReLU is 0 or 1 by the sign of what may be a rounding: in 6 of 1,720 trainings one neuron at one
    token set weights 1e-5 to 1e-4 apart from what the same batches gave, summed in another order. Smooth, all are
    within 3e-7.
    """
    return functools.partial(student_config, **{f"{part}.hidden_act": "gelu" for part in ("encoder", "decoder")})


@pytest.fixture(scope="session")
def tiny_trainer() -> Callable:
    """A factory of quiet CPU trainers that validate only at the end: `tiny_trainer(max_steps=3)`."""
    from omegaconf import OmegaConf

    from nemo_distill.training.trainer import build_trainer

    def build(max_steps: int, **arguments):
        section = {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": max_steps,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "val_check_interval": max_steps,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
        }
        return build_trainer(OmegaConf.create({**section, **arguments}))

    return build


@pytest.fixture(scope="session")
def first_batch() -> Callable:
    """A function that returns a training batch, with padding on both sides, as the training step sees it."""

    def take(model) -> list:
        batches = ([item.squeeze(0) for item in batch] for batch in model._train_dl)
        return next(batch for batch in batches if not batch[1].all() and not batch[3].all())

    return take


@pytest.fixture(scope="session")
def kill_repeatedly() -> Callable:
    """A function that starts a command of `pseudo-label` again and again and kills it while it is at work."""

    def kill(
        command: list[str],
        directory: Path,
        kills: int,
        longest_delay: float,
        generator: random.Random,
        environment: dict[str, str] | None = None,
    ) -> list[int]:
        """Kill the command `kills` times, each time up to `longest_delay` seconds after it has finished a shard.

        Returns:
            The number of shards in the output directory after each kill.
        """

        def shards() -> int:
            return len(list(directory.glob(".shards-*/*.jsonl.gz")))

        found = []
        for _ in range(kills):
            before, deadline = shards(), time.monotonic() + 300
            process = subprocess.Popen(command, env={**os.environ, **(environment or {})})
            try:
                while shards() == before:
                    assert process.poll() is None, f"ended by itself with status {process.returncode}"
                    assert time.monotonic() < deadline, "made no shard"
                    time.sleep(0.01)
                time.sleep(generator.uniform(0, longest_delay))
            finally:
                process.send_signal(signal.SIGKILL)
                status = process.wait(30)
            assert status == -signal.SIGKILL, "had finished: give it more to do"
            found.append(shards())
        return found

    return kill


LANGUAGES = ("de", "es", "fr")
_WORDS = {
    "en": ["the lamp", "the door", "the motor", "the radio", "is open", "is broken", "is new", "isn't here"],
    "de": ["die Lampe", "die Tür", "der Motor", "das Radio", "ist offen", "ist kaputt", "ist neu", "ist nicht da"],
    "es": ["la lámpara", "la puerta", "el motor", "la radio", "abre", "no funciona", "es nuevo", "no está"],
    "fr": ["la lampe", "la porte", "le moteur", "la radio", "s'ouvre", "ne marche pas", "est neuf", "n'est pas là"],
}


@pytest.fixture(scope="session")
def multilingual_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the same 28 sentences in four languages: train (16), valid (6) and test (6), `train.de` ..."""
    directory = tmp_path_factory.mktemp("multilingual")
    pairs = [(thing, state) for thing in range(4) for state in range(4, 8)]
    twice = [(*pair, other) for pair, other in zip(pairs[:12], pairs[3:15], strict=True)]
    for language, words in _WORDS.items():
        lines = [f"{words[thing]} {words[state]}.\n" for thing, state in pairs]
        lines += [f"{words[a]} {words[b]}, {words[c[0]]} {words[c[1]]}.\n" for a, b, c in twice]
        for split, part in (("train", slice(16)), ("valid", slice(16, 22)), ("test", slice(22, 28))):
            (directory / f"{split}.{language}").write_text("".join(lines[part]), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def multilingual_config(tiny_model_config: Callable, multilingual_corpus: Path, tmp_path_factory) -> Callable:
    """A factory of sections of models over one SentencePiece vocabulary: `multilingual_config("one_to_many")`.

    Kinds: `one_to_many` from English and `many_to_one` to English, with German, Spanish and French on the other side;
    or a pair as `en-es`. Other keywords are those of `tiny_model_config`.
    """
    from nemo_distill.data import tokenizer

    directory = tmp_path_factory.mktemp("tokenizer")
    texts = [multilingual_corpus / f"train.{language}" for language in _WORDS]
    tokenizer.train(texts, 96, directory, library="sentencepiece")
    section = {
        "library": "sentencepiece",
        "tokenizer_model": str(directory / tokenizer.MODEL),
        "bpe_dropout": 0.0,
    }

    def build(kind: str, hidden_size: int = 16, num_layers: int = 1, **overrides):
        source, _, target = kind.partition("-")
        languages = {
            "one_to_many": {"src_language": "en", "tgt_language": list(LANGUAGES), "multilingual": True},
            "many_to_one": {"src_language": list(LANGUAGES), "tgt_language": "en", "multilingual": True},
        }.get(kind, {"src_language": source, "tgt_language": target})
        added = {"sentencepiece_legacy": True} if kind == "one_to_many" else {}
        sides = {f"{side}_tokenizer": {**section, **added} for side in ("encoder", "decoder")}
        return tiny_model_config(hidden_size, num_layers, **{**languages, **sides, **overrides})

    return build


@pytest.fixture(scope="session")
def multilingual_teacher_paths(
    multilingual_config: Callable, multilingual_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Archives of stock models of two layers, `one_to_many` and `many_to_one`, trained for 60 steps by NeMo's data."""
    import torch
    from nemo.collections.nlp.models import MTEncDecModel
    from omegaconf import OmegaConf

    paths = {}
    for kind in ("one_to_many", "many_to_one"):
        sides = [[str(multilingual_corpus / f"train.{language}") for language in LANGUAGES]]
        sides.append([str(multilingual_corpus / "train.en")] * len(LANGUAGES))
        names = ("tgt_file_name", "src_file_name") if kind == "one_to_many" else ("src_file_name", "tgt_file_name")
        data = {**dict(zip(names, sides, strict=True)), "tokens_in_batch": 2000, "shuffle": False, "num_workers": 0}
        torch.manual_seed(0)
        model = MTEncDecModel(multilingual_config(kind, 32, 2))
        model.multilingual_ids = model.multilingual_ids or [None] * len(LANGUAGES)
        model.setup_validation_data(OmegaConf.create(data))
        model._train_dl = [batch for loader in model._validation_dl for batch in loader]
        train_in_place(model, steps=60, learning_rate=1e-2)
        paths[kind] = tmp_path_factory.mktemp("teacher") / f"{kind}.nemo"
        model.save_to(str(paths[kind]))
    return paths
