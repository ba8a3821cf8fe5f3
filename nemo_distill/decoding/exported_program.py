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
"""Translate text with the model in this directory: one line of standard input, one line of standard output.

    python translate.py < source.txt > target.txt

Lines are translated as they come, those that are there at once; --n-best 4 writes JSON lines with scores. A model of
several languages is told which: --target-lang de, or --source-lang de. It needs ctranslate2, the library of the
tokenizers, and what processes the model's text, such as sacremoses: see README.md. Languages, search and limits are
read from `export.json`, as data, and all files that it names are compared with their SHA-256 first. This file is the
same in every exported model.
"""

import argparse
import hashlib
import json
import os
import re
import stat
import sys
import tempfile

FORMAT_VERSION = 2
LANGUAGE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")  # which end lines or steer terminals
CONTROL[0xFEFF] = ""  # nor is a byte order mark text
LINE_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
LINE_END = re.compile(r"\r?\n?\Z")
LIBRARIES = ("yttm", "sentencepiece")
PROCESSORS = ("MosesProcessor", "EnJaProcessor", "IndicProcessor", "ChineseProcessor", "JaMecabProcessor")
_WIDE = "[\u2018\u2019\u201c\u201d\u2e80-\u312f\u3200-\u32ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
WIDE_APART = re.compile("(%s)\\s+(?=%s)" % (_WIDE, _WIDE))
MOST_BYTES_OF_RECORD = 16 << 20
SMALL_BYTES = 32 << 20  # of weights, whose products are not worth a second thread
CONTROL_GROUP = "/sys/fs/cgroup"
QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # of its second version, and of its first
CUT = "translate.py: line %d is longer than the model takes, and cut"
BLOCK_BYTES = 1 << 16  # read at once; what a pipe holds
MOST_LINE_BYTES = 1 << 20


class ExportError(Exception):
    """The directory is not what `export` wrote; the message names the file and what to do."""


class Model:
    """An exported model.

    Args:
        directory: of the export; by default the one of this file.
        device: `cpu`, `cuda` or `cuda:N`.

    Example:
        >>> Model("student_int8").translate("Guten Tag")  # doctest: +SKIP
        'Good day'
    """

    cut = ()  # places of the texts of the latest call that were longer than the model takes

    def __init__(self, directory=None, device="cpu"):
        self.directory = os.path.abspath(directory or os.path.dirname(os.path.abspath(__file__)))
        content = read_record(self.directory)
        for name in sorted(set(content["files"]) - {"README.md"}):  # which people may change
            check_file(os.path.join(self.directory, name), content["files"][name])
        self.source, self.target, self.search = content["source"], content["target"], content["search"]
        self.longest_source, self.longest_target = content["longest_source"], content["longest_target"]
        self.quantization = content["request"]["quantization"]
        check_device(device)
        self.device, self._translator, self._pool = device, None, (0, 0)
        given, cores = given_threads()
        self._most_threads, self._threads_alone = given or cores, self._threads()
        try:
            self._load(1)
            self.source_tokenizer = self._open_tokenizer(self.source)
            self.target_tokenizer = self._open_tokenizer(self.target)
            self.source_names = names(self.source_tokenizer) if self.source["library"] == "yttm" else []
            target_names = names(self.target_tokenizer) if self.target["library"] == "yttm" else []
            self.target_ids = {name: number for number, name in enumerate(target_names)}
            self.padding, self.end = self._mark("pad"), self._mark("eos")
            self.target_tokens = self.target_tokenizer.vocab_size() + len(self.target.get("added") or {})
        except (RuntimeError, ValueError) as error:
            raise ExportError(
                "'%s' cannot be opened (%s); export the model again" % (self.directory, error)
            ) from error
        self._processors = {}
        both = {"source": self.source["language"], "target": self.target["language"], "front": [], "end": []}
        both.update(source_processor=self.source["processor"], target_processor=self.target["processor"])
        self.pairs = content.get("pairs") or [both]

    def _threads(self):
        """Return the CPU threads for one sentence; of more than cores, which would crawl, as many as cores."""
        given, cores = given_threads()
        small = os.path.getsize(os.path.join(self.directory, "model.bin")) < SMALL_BYTES
        return given or (1 if small else min(cores, 4))

    def _load(self, batches):
        """Return a translator for so many batches at once; only one is kept."""
        import ctranslate2

        batches = batches if self.device == "cpu" else 1
        pool = side_by_side(batches, self._most_threads, self._threads_alone)
        if pool[0] > self._pool[0] or pool[1] != self._pool[1]:
            self._translator = None  # frees its memory first
            kind, _, index = self.device.partition(":")
            options = {"device_index": int(index or 0), "inter_threads": pool[0], "intra_threads": pool[1]}
            try:
                self._translator = ctranslate2.Translator(self.directory, kind, **options)
            except (RuntimeError, ValueError) as error:
                if kind == "cpu":
                    raise
                raise ExportError(
                    "CTranslate2 cannot decode on '%s' (%s); give the device cpu" % (self.device, error)
                ) from error
            self._pool = pool
        return self._translator

    def translate(self, text, source_language=None, target_language=None):
        """Return the translation of one line of raw text; a model of several languages is told which are meant."""
        return self.hypotheses([text], source_language, target_language)[0][0][0]

    def hypotheses(
        self, texts, source_language=None, target_language=None, beam_size=None, n_best=1, batch_tokens=4096
    ):
        """Return the likeliest hypotheses of each line of raw text, best first.

        Args:
            texts: any number of lines; what one gets does not depend on the others.
            source_language: which is meant, of a model of several.
            target_language: as `source_language`.
            beam_size: hypotheses while searching; by default as the model was exported.
            n_best: hypotheses of each line, at most `beam_size`.
            batch_tokens: most source tokens in a batch.

        Returns:
            For each line a list of (raw text, sum of the log-probabilities of its tokens).

        Example:
            >>> Model("student_int8").hypotheses(["Guten Tag", "Danke"], n_best=2)  # doctest: +SKIP
            [[('Good day', -0.9), ('Hello', -2.1)], [('Thank you', -0.4), ('Thanks', -1.2)]]
        """
        pair, beam_size = self.check(source_language, target_language, beam_size, n_best, batch_tokens)
        special = max(len(pair["front"] + pair["end"]), 2)  # CTranslate2 adds them where the pair names none
        room, self.cut, sources = self.longest_source - special, [], {}
        for place, text in enumerate(texts):
            pieces = self._source_pieces(text, pair)
            if len(pieces) > room:
                self.cut.append(place)
            if pieces:
                sources[place] = pieces[:room]
        found, waiting = [[("", 0.0)] for _ in texts], []
        groups = list(equal_batches({place: len(pieces) + special for place, pieces in sources.items()}, batch_tokens))
        translator = self._load(len(groups))
        for places in groups:
            longest = len(sources[places[0]]) + special + self.search["max_length_delta"]
            options = beam_options(beam_size, min(longest, self.longest_target))
            batch = [pair["front"] + sources[place] + pair["end"] for place in places]
            started = translator.translate_batch(batch, asynchronous=True, **options)
            waiting += [(*each, options) for each in zip(places, batch, started)]
        for place, source, result, options in waiting:
            hypotheses = without(self.padding, self.end, result.result(), translator, source, **options)
            found[place] = self._ranked(hypotheses, n_best, pair)
        return found

    def check(self, source_language=None, target_language=None, beam_size=None, n_best=1, batch_tokens=4096):
        """Return the pair of languages and the beam that are meant; raise an error for what `hypotheses` cannot do."""
        pair = self.pair(source_language, target_language)
        beam_size = self.search["beam_size"] if beam_size is None else beam_size
        if not 0 < beam_size <= self.target_tokens:
            raise ExportError(
                "the beam is %d; give one from 1 to the target's %d tokens" % (beam_size, self.target_tokens)
            )
        if batch_tokens < 1:
            raise ExportError("batch_tokens is %d; give at least 1" % batch_tokens)
        if not 0 < n_best <= beam_size:
            raise ExportError("n-best is %d with a beam of %d; a beam has at most that many" % (n_best, beam_size))
        return pair, beam_size

    def _source_pieces(self, text, pair):
        """Return the pieces of a raw text, none of one without words."""
        process, text = self._text_functions(pair)[0], text.rstrip("\n")
        if process is not None and text.strip():
            text = LINE_BREAKS.sub(" ", process(text))
        return self._encode(text) if text.strip() else []

    def _ranked(self, hypotheses, n_best, pair):
        """Return the best hypotheses of a text by NeMo's penalized score, as `hypotheses` has them."""
        detokenize, exponent, best = self._text_functions(pair)[1], self.search["length_penalty"], []
        ranked = sorted(hypotheses, key=lambda one: -one[1] / length_penalty(len(one[0]), exponent))
        for pieces, score in ranked[:n_best]:
            text = self._decode(pieces)
            if detokenize is not None:
                text = detokenize(text.split(" "))
            best.append((text.translate(CONTROL), score))
        return best

    def pair(self, source_language=None, target_language=None):
        """Return the pair of languages that is meant: the only one, or the one that fits what is given."""
        found = [
            pair
            for pair in self.pairs
            if source_language in (None, pair["source"]) and target_language in (None, pair["target"])
        ]
        if len(found) != 1:
            known = ", ".join("%(source)s to %(target)s" % pair for pair in self.pairs)
            fix = "say which: --source-lang, --target-lang"
            fix = fix if len(self.pairs) > 1 else "leave --source-lang and --target-lang out"
            raise ExportError("the model translates %s; %s" % (known, fix))
        return found[0]

    def _open_tokenizer(self, side):
        path = os.path.join(self.directory, side["file"])
        if side["library"] == "yttm":
            import youtokentome

            return youtokentome.BPE(path)
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=path)

    def _mark(self, name):
        """Return the piece of the target's `pad` or `eos`, None where there is none."""
        if self.target["library"] == "yttm":
            return "<%s>" % name.upper()
        if self.target.get("marks"):  # NeMo's own, of an older SentencePiece model
            return self.target["marks"][name]
        number = getattr(self.target_tokenizer, name + "_id")()
        return self.target_tokenizer.id_to_piece(number) if number >= 0 else None

    def _text_functions(self, pair):
        """Return what processes a raw source, and what makes raw text of a target's words; None where nothing does."""
        key = pair["source"], pair["target"]
        if key not in self._processors:
            source, target = pair["source_processor"], pair["target_processor"]
            self._processors[key] = processing(source, pair["source"]), detokenization(target, pair["target"])
        return self._processors[key]

    def _encode(self, text):
        tokenizer = self.source_tokenizer
        if self.source["library"] == "sentencepiece":
            added = self.source.get("added") or {}
            if not added:
                return self._pieces(text)
            parts = re.split("(%s)" % "|".join(map(re.escape, added)), text)  # as NeMo finds added tokens in a text
            return [piece for part in parts for piece in ([part] if part in added else self._pieces(part))]
        numbers = tokenizer.encode([text], reverse=self.source["right_to_left"])[0]
        return [self.source_names[number] for number in numbers]

    def _pieces(self, text):
        tokenizer = self.source_tokenizer  # by their numbers: unknown text is no piece, whatever it looks like
        return [tokenizer.id_to_piece(number) for number in tokenizer.encode(text)]

    def _decode(self, pieces):
        tokenizer = self.target_tokenizer
        if self.target["library"] == "sentencepiece":
            text, part = "", []
            for piece in pieces:
                if piece in (self.target.get("added") or {}):
                    text += self._text(part) + " " + piece + " "
                    part = []
                else:
                    part.append(piece)
            text += self._text(part)
            return text.strip() if self.target.get("added") else text
        numbers = [self.target_ids[piece] for piece in pieces]
        if self.target["right_to_left"]:
            numbers = numbers[::-1]
        return tokenizer.decode([numbers], ignore_ids=self.target["special_ids"])[0]

    def _text(self, pieces):
        return self.target_tokenizer.decode([self.target_tokenizer.piece_to_id(piece) for piece in pieces])


def check_device(device):
    """Raise an error for what is no name of a device."""
    if not re.fullmatch("cpu|cuda(:[0-9]{1,4})?", device):
        raise ExportError("device is '%s'; give cpu, cuda or cuda:N" % device)


def given_threads():
    """Return the threads that OMP_NUM_THREADS says, at most one for each core, or None; and the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, quota_of_cores() or cores)
    given = re.match("\\s*\\+?0*([1-9][0-9]{0,8})\\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))
    return min(int(given.group(1)), cores) if given else None, cores


def quota_of_cores():
    """Return the cores that the control group of this process leaves it, as that of a container; None: all of them."""
    for names in QUOTAS:
        try:
            words = []
            for name in names:
                with open_regular(os.path.join(CONTROL_GROUP, name)) as stream:
                    words += stream.read(100).split()
            quota, period = int(words[0]), int(words[1])
        except (ExportError, OSError, ValueError, IndexError):  # there is none, or it says "max"
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return None


def side_by_side(batches, threads, alone):
    """Return how many batches are decoded at once, and the threads of each, which are `alone` for one of them."""
    workers = max(min(threads, batches), 1)
    return workers, max(min(threads // workers, alone), 1)


def equal_batches(lengths, batch_tokens):
    """Yield the places of each batch, longest first: sentences of one length, as many as have so many tokens."""
    batch = []
    for place in sorted(lengths, key=lambda place: -lengths[place]):
        length = lengths[place]
        if batch and (length < lengths[batch[0]] or (len(batch) + 1) * length > batch_tokens):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def beam_options(beam_size, longest):
    """Return what CTranslate2 is told of a beam search; the penalty of lengths comes behind it."""
    return {
        "beam_size": beam_size,
        "num_hypotheses": beam_size,
        "length_penalty": 0,
        "return_scores": True,
        "max_input_length": 0,
        "min_decoding_length": 0,
        "max_decoding_length": longest,
    }


def without(padding, end, result, translator, source, **options):
    """Return the hypotheses of a source with their scores, of another search where one has padding, as NeMo has none.

    CTranslate2 gives what that would have to all other tokens there, so the scores are taken of the model as it is.
    """
    if padding is None or not any(padding in pieces for pieces in result.hypotheses):
        return list(zip(result.hypotheses, result.scores))
    again = dict(options, return_end_token=True, suppress_sequences=[[padding]])
    found = translator.translate_batch([source], **again)[0].hypotheses
    words = [pieces[:-1] if pieces[-1:] == [end] else pieces for pieces in found]
    scored = translator.score_batch([source] * len(words), words, max_input_length=0)  # each with an end token
    scores = [sum(each.log_probs[: len(pieces)]) for each, pieces in zip(scored, found)]
    return list(zip(found if options.get("return_end_token") else words, scores))


def length_penalty(tokens, exponent):
    """Return the GNMT penalty by which NeMo divides the score of a hypothesis of so many tokens without end token.

    Example:
        >>> length_penalty(5, 1.0)  # ((5 + 5 + 2) / 6) ** 1
        2.0
    """
    return ((5 + tokens + 2) / 6) ** exponent


def names(tokenizer):
    """Return the names that the model has for YouTokenToMe's pieces; of two that are the same the later has its id."""
    found = tokenizer.vocab()
    first = {piece: number for number, piece in reversed(list(enumerate(found)))}
    return [piece if first[piece] == number else "%s %d" % (piece, number) for number, piece in enumerate(found)]


def processing(name, language):
    """Return what makes processed text of raw text as NeMo's processor of that name does; None: the text stays."""
    if name in ("MosesProcessor", "EnJaProcessor"):
        from sacremoses import MosesPunctNormalizer, MosesTokenizer

        tokenize = MosesTokenizer(lang=language).tokenize
        if name == "MosesProcessor":
            normalize = MosesPunctNormalizer(lang=language).normalize
            return lambda text: tokenize(normalize(text), escape=False, return_str=True)
        if language != "en":
            return lambda text: " ".join(tokenize(text))
        options = {"pre_replace_unicode_punct": True, "post_remove_control_chars": True}
        normalize = MosesPunctNormalizer(lang=language, **options).normalize
        return lambda text: " ".join(tokenize(normalize(text)))
    if name == "ChineseProcessor":
        import jieba
        import opencc

        simplify = opencc.OpenCC("t2s.json").convert
        jieba.setLogLevel("ERROR")
        with tempfile.TemporaryDirectory() as jieba.dt.tmp_dir:  # else it takes its dictionary from anybody's file
            jieba.initialize()
        return lambda text: " ".join(jieba.cut(simplify(text)))
    if name == "JaMecabProcessor":
        import ipadic
        import MeCab

        parse = MeCab.Tagger(ipadic.MECAB_ARGS + " -Owakati").parse
        return lambda text: parse(text).strip()
    return str if name == "IndicProcessor" else None  # whose sources stay, on one line


def detokenization(name, language):
    """Return what makes raw text of words as NeMo's processor of that name does; None: they stay as they are."""
    if name in ("MosesProcessor", "EnJaProcessor", "IndicProcessor"):
        from sacremoses import MosesDetokenizer

        return MosesDetokenizer(lang=language).detokenize
    if name in ("ChineseProcessor", "JaMecabProcessor"):
        from pangu import spacing

        return lambda words: spacing(WIDE_APART.sub(r"\1", " ".join(words))).strip()
    return None


def read_record(directory):
    """Return what export.json says, every value that is used of the right type and in its range."""
    path = os.path.join(directory, "export.json")
    with open_regular(path) as stream:
        text = stream.read(MOST_BYTES_OF_RECORD + 1)
    try:
        if len(text) > MOST_BYTES_OF_RECORD:
            raise ValueError("it is too long")
        content = json.loads(text.decode("utf-8"))
        if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
            raise ValueError("it is no record of format version %d" % FORMAT_VERSION)
        check_record(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExportError("'%s' cannot be used (%s); export the model again" % (path, error)) from error
    return content


def check_record(content):
    """Raise an error for the first value that is wrong."""
    files = content["files"]
    for name in files:
        expect(is_file_name(name), "files: a name that is no plain file name")
        expect(is_whole(files[name]["bytes"], 0, 1 << 50), "files: a number of bytes")
        expect(isinstance(files[name]["sha256"], str), "files: a hash")
    expect("model.bin" in files and "config.json" in files, "files: the lack of model.bin or config.json")
    for key in ("source", "target"):
        side = content[key]
        expect(side["library"] in LIBRARIES, key + ".library")
        expect(side["file"] in files, key + ".file")
        language = side["language"]
        expect(language is None or is_language(language), key + ".language")
        check_processor(side["processor"], language, key + ".processor")
        expect(isinstance(side["right_to_left"], bool), key + ".right_to_left")
        expect(isinstance(side["special_ids"], list), key + ".special_ids")
        expect(all(is_whole(number, 0, 1 << 31) for number in side["special_ids"]), key + ".special_ids")
        added = side.get("added", {})
        expect(isinstance(added, dict) and all(is_whole(added[name], 0, 1 << 31) for name in added), key + ".added")
        marks = side.get("marks") or {"pad": "", "eos": ""}
        expect(
            isinstance(marks, dict) and all(isinstance(marks[name], str) for name in ("pad", "eos")), key + ".marks"
        )
    expect(isinstance(content.get("pairs", []), list), "pairs")
    for pair in content.get("pairs", []):
        for key in ("source", "target"):
            expect(pair[key] is None or is_language(pair[key]), "pairs." + key)
            check_processor(pair[key + "_processor"], pair[key], "pairs.processor")
        for key in ("front", "end"):
            tokens = pair[key]
            expect(isinstance(tokens, list) and all(isinstance(token, str) for token in tokens), "pairs." + key)
    search = content["search"]
    expect(is_whole(search["beam_size"], 1, 10000), "search.beam_size")
    expect(is_whole(search["max_length_delta"], 0, 1 << 20), "search.max_length_delta")
    penalty = search["length_penalty"]
    expect(isinstance(penalty, (int, float)) and not isinstance(penalty, bool), "search.length_penalty")
    expect(-10 <= penalty <= 10, "search.length_penalty")
    expect(is_whole(content["longest_source"], 3, 1 << 20), "longest_source")
    expect(is_whole(content["longest_target"], 1, 1 << 20), "longest_target")


def check_processor(name, language, what):
    """Raise a ValueError for a text processor that this program does not have, or that needs a language."""
    expect(name is None or (name in PROCESSORS and language is not None), what)


def expect(holds, what):
    """Raise a ValueError that names what is wrong."""
    if not holds:
        raise ValueError(what + " is wrong")


def is_whole(value, lowest, highest):
    """Return whether a value is a whole number in a range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def is_language(value):
    """Return whether a value is a language as archives name them."""
    return isinstance(value, str) and len(value) <= 16 and set(value) <= LANGUAGE_LETTERS


def is_file_name(name):
    """Return whether a text names a file in the directory itself."""
    plain = 0 < len(name) < 200 and name.isprintable() and not set(name) & set("/\\:")
    return plain and name not in (".", "..")


def open_regular(path):
    """Open a regular file, and nothing that could block or never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ExportError("'%s' cannot be opened (%s); export the model again" % (path, error.strerror)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ExportError("'%s' is not a regular file; export the model again" % path)
    return os.fdopen(descriptor, "rb")


def check_file(path, entry):
    """Compare a file with the size and the hash that export.json has for it."""
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        same = os.fstat(stream.fileno()).st_size == entry["bytes"]
        while same:
            block = stream.read(1 << 20)
            if not block:
                break
            digest.update(block)
    if not same or digest.hexdigest() != entry["sha256"]:
        raise ExportError("'%s' has changed since the model was exported; export the model again" % path)


def main(arguments=None):
    """Translate standard input line by line; lines end at a line feed alone."""
    if sys.stdin is None or sys.stdout is None:
        sys.exit("translate.py: standard input or output is closed")
    parser = argparse.ArgumentParser(description="Translate standard input line by line, as lines come.")
    for side in ("source", "target"):
        parser.add_argument("--%s-lang" % side, metavar="CODE", help="which, of a model of several languages")
    parser.add_argument("--beam-size", type=positive, metavar="N", help="hypotheses while decoding; default: its own")
    parser.add_argument(
        "--n-best", type=positive, metavar="N", help="write so many of each line, as JSON, with scores"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N; default: cpu")
    asked = parser.parse_args(arguments)
    try:
        model = Model(device=asked.device)
        options = asked.source_lang, asked.target_lang, asked.beam_size, asked.n_best or 1
        model.check(*options)  # before anything is read
        number = 1
        for texts in read_lines(sys.stdin.buffer):
            found = model.hypotheses(texts, *options)
            for place in model.cut:
                sys.stderr.write(CUT % (number + place) + "\n")
            write(sys.stdout.buffer, output_lines(number, texts, found, asked.n_best))
            number += len(texts)
    except BrokenPipeError:
        drop_output()  # the reader has gone
        sys.exit(141)
    except ImportError as error:
        end("%s; README.md says what to install" % error)
    except (ExportError, OSError, RuntimeError, ValueError) as error:  # of the disk, and of CTranslate2
        end(error)
    except KeyboardInterrupt:
        sys.exit(130)


def positive(text):
    """Return a number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def read_lines(stream):
    """Yield lists of lines: those that are there, as soon as there is one, so that nobody waits for an answer.

    Raises:
        ExportError: a line is not UTF-8, or very long; those before it have been yielded.
    """
    rest, number, block = b"", 0, b"more"
    while block:
        block = stream.read1(BLOCK_BYTES)
        lines = (rest + block).split(b"\n")
        rest = lines.pop() if block or not lines[-1] else b""
        texts, fault = [], None
        for line in lines:
            number += 1
            try:
                texts.append(LINE_END.sub("", line.decode("utf-8-sig" if number == 1 else "utf-8")))
            except UnicodeDecodeError:
                fault = "line %d of the input is not UTF-8; convert it, for instance with iconv" % number
                break
        if fault is None and len(rest) > MOST_LINE_BYTES:
            fault = "line %d of the input has more than 1 MB; give one sentence a line" % (number + 1)
        if texts:
            yield texts
        if fault is not None:
            raise ExportError(fault)


def output_lines(number, texts, found, n_best=None):
    """Return what is written of some lines, the first of this number: the best hypotheses, or several as JSON."""
    if n_best is None:
        return "".join(hypotheses[0][0] + "\n" for hypotheses in found)
    rows = []
    for line, (text, hypotheses) in enumerate(zip(texts, found), start=number):
        scored = [{"text": one, "score": score} for one, score in hypotheses]
        rows.append(json.dumps({"line": line, "source": text, "hypotheses": scored}, ensure_ascii=False) + "\n")
    return "".join(rows)


def write(stream, text):
    """Write text at once; an output that cannot be written is one error."""
    try:
        stream.write(text.encode("utf-8"))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_output()
        raise ExportError("standard output cannot be written (%s)" % error.strerror) from error


def drop_output():
    """Send what was not written nowhere, or Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end(message):
    """End with one line."""
    sys.exit("translate.py: %s" % str(message).translate(CONTROL))


if __name__ == "__main__":
    main()
