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

A model of several languages is told which: --target-lang de, or --source-lang de. It needs ctranslate2, the library of
the tokenizers, and what processes the model's text, such as sacremoses: see README.md. Languages, search and limits
are read from `export.json`, as data, and all files that it names are compared with their SHA-256 first. This file is
the same in every exported model.
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
LINE_BREAKS = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
LINE_END = re.compile(r"\r?\n?\Z")
LIBRARIES = ("yttm", "sentencepiece")
PROCESSORS = ("MosesProcessor", "EnJaProcessor", "IndicProcessor", "ChineseProcessor", "JaMecabProcessor")
_WIDE = "[\u2018\u2019\u201c\u201d\u2e80-\u312f\u3200-\u32ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]"
WIDE_APART = re.compile("(%s)\\s+(?=%s)" % (_WIDE, _WIDE))
MOST_BYTES_OF_RECORD = 16 << 20
SMALL_BYTES = 32 << 20  # of weights, whose products are not worth a second thread


class ExportError(Exception):
    """The directory is not what `export` wrote; the message names the file and what to do."""


class Model:
    """An exported model.

    Args:
        directory: of the export; by default the one of this file.
        device: `cpu` or `cuda`.

    Example:
        >>> Model("student_int8").translate("Guten Tag")  # doctest: +SKIP
        'Good day'
    """

    def __init__(self, directory=None, device="cpu"):
        self.directory = os.path.abspath(directory or os.path.dirname(os.path.abspath(__file__)))
        content = read_record(self.directory)
        for name in sorted(set(content["files"]) - {"README.md"}):  # which people may change
            check_file(os.path.join(self.directory, name), content["files"][name])
        self.source, self.target, self.search = content["source"], content["target"], content["search"]
        self.longest_source, self.longest_target = content["longest_source"], content["longest_target"]
        import ctranslate2

        try:
            self.translator = ctranslate2.Translator(self.directory, device=device, intra_threads=self._threads())
            self.source_tokenizer = self._open_tokenizer(self.source)
            self.target_tokenizer = self._open_tokenizer(self.target)
            self.source_names = names(self.source_tokenizer) if self.source["library"] == "yttm" else []
            target_names = names(self.target_tokenizer) if self.target["library"] == "yttm" else []
            self.target_ids = {name: number for number, name in enumerate(target_names)}
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
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        given = re.match("\\s*\\+?0*([1-9][0-9]{0,8})\\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))
        if given:
            return min(int(given.group(1)), cores)
        return 1 if os.path.getsize(os.path.join(self.directory, "model.bin")) < SMALL_BYTES else min(cores, 4)

    def translate(self, text, source_language=None, target_language=None):
        """Return the translation of one line of raw text; a model of several languages is told which are meant."""
        pair = self.pair(source_language, target_language)
        if not text.strip():
            return ""
        process, detokenize = self._text_functions(pair)
        if process is not None:
            text = LINE_BREAKS.sub(" ", process(text))
            if not text.strip():
                return ""
        # start and end token come to these, or are given with the language in front of them
        pieces = self._encode(text)
        if not pieces:
            return ""
        pieces = pieces[: self.longest_source - max(len(pair["front"] + pair["end"]), 2)]
        beam_size = self.search["beam_size"]
        longest = len(pieces) + max(len(pair["front"] + pair["end"]), 2) + self.search["max_length_delta"]
        pieces = pair["front"] + pieces + pair["end"]
        [result] = self.translator.translate_batch(
            [pieces],
            beam_size=beam_size,
            num_hypotheses=beam_size,
            length_penalty=0,
            return_scores=True,
            max_decoding_length=min(longest, self.longest_target),
            min_decoding_length=0,
            max_input_length=0,
        )
        best, best_rank = [], float("-inf")
        for hypothesis, score in zip(result.hypotheses, result.scores):
            rank = score / ((7 + len(hypothesis)) / 6) ** self.search["length_penalty"]  # NeMo's length penalty
            if rank > best_rank:
                best, best_rank = hypothesis, rank
        text = self._decode(best)
        if detokenize is not None:
            text = detokenize(text.split(" "))
        return text.translate(CONTROL)

    def pair(self, source_language=None, target_language=None):
        """Return the pair of languages that is meant: the only one, or the one that fits what is given."""
        found = [
            pair
            for pair in self.pairs
            if source_language in (None, pair["source"]) and target_language in (None, pair["target"])
        ]
        if len(found) != 1:
            known = ", ".join("%(source)s to %(target)s" % pair for pair in self.pairs)
            raise ExportError("the model translates %s; say which: --source-lang, --target-lang" % known)
        return found[0]

    def _open_tokenizer(self, side):
        path = os.path.join(self.directory, side["file"])
        if side["library"] == "yttm":
            import youtokentome

            return youtokentome.BPE(path)
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=path)

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
    return None


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
    expect("model.bin" in files and "config.json" in files, "files: no model")
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
    parser = argparse.ArgumentParser(description="Translate standard input line by line.")
    for side in ("source", "target"):
        parser.add_argument("--%s-lang" % side, metavar="CODE", help="which, of a model of several languages")
    arguments = parser.parse_args(arguments)
    try:
        model = Model()
        model.pair(arguments.source_lang, arguments.target_lang)
        translate_lines(model, arguments.source_lang, arguments.target_lang)
    except BrokenPipeError:
        drop_output()  # the reader has gone
        sys.exit(141)
    except ImportError as error:
        end("%s; README.md says what to install" % error)
    except (ExportError, OSError, RuntimeError) as error:  # of the disk, and of CTranslate2
        end(error)
    except KeyboardInterrupt:
        sys.exit(130)


def translate_lines(model, source_language=None, target_language=None):
    """Write the translation of each line."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise ExportError(
                "line %d of the input is not UTF-8; convert it, for instance with iconv" % number
            ) from error
        text = LINE_END.sub("", text)
        translation = model.translate(text, source_language, target_language) + "\n"
        try:
            sys.stdout.buffer.write(translation.encode("utf-8"))
            sys.stdout.buffer.flush()
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
