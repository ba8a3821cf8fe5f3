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
import functools
import http.server
import os
import re
import subprocess
import sys
import threading

import pytest

from nemo_distill import cli
from nemo_distill.data.corpora import ui_strings
from nemo_distill.data.corpora import wheel as wheels
from nemo_distill.errors import InputError
from nemo_distill.support import files, incoming, text_files

OPTIONS = {"valid_size": 40, "test_size": 40}
SPLITS = ("train", "valid", "test")


def read(directory, language: str) -> dict[str, list[str]]:
    return {split: text_files.read_lines(directory / f"{split}.{language}") for split in SPLITS}


def simplify(text: str) -> str:
    return " ".join(re.findall(r"[^\W\d_]+", re.sub(r"\{.*?\}", " ", text.casefold())))


def build(wheel, output, source="de", target="en", **options):
    return ui_strings.build(source, target, output, cache_dir=wheel.parent, **(OPTIONS | options))


def test_build_writes_parallel_splits_and_a_true_manifest(wheel, tmp_path):
    manifest, was_finished = build(wheel, tmp_path / "ui")
    assert not was_finished
    german, english = read(tmp_path / "ui", "de"), read(tmp_path / "ui", "en")
    for split in SPLITS:
        assert len(german[split]) == len(english[split]) == manifest["splits"][split]["pairs"]
        for source, target in zip(german[split], english[split], strict=True):
            assert simplify(source) == " ".join(word + "en" for word in simplify(target).split())
    assert manifest["splits"]["test"]["pairs"] == 40
    assert manifest["splits"]["valid"]["pairs"] == 40
    assert manifest["read_pairs"] == sum(entry["pairs"] for entry in manifest["splits"].values()) + sum(
        manifest["dropped"].values()
    )
    assert manifest["request"]["wheel_sha256"] == files.sha256(wheel)
    assert manifest == incoming.read_json(tmp_path / "ui" / "manifest.json")
    for name, entry in manifest["files"].items():
        assert entry["sha256"] == files.sha256(tmp_path / "ui" / name)


def test_build_is_the_same_every_time(wheel, tmp_path):
    first, second = build(wheel, tmp_path / "one"), build(wheel, tmp_path / "two")
    assert first == second
    other_seed = build(wheel, tmp_path / "three", seed=1)[0]
    assert other_seed["files"] != first[0]["files"]


def test_finished_directory_is_left_alone_without_the_wheel(wheel, tmp_path):
    manifest, _ = build(wheel, tmp_path / "ui")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "ui").iterdir()}
    wheel.unlink()
    assert build(wheel, tmp_path / "ui") == (manifest, True)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "ui").iterdir()} == before


def test_other_options_are_refused_unless_told(wheel, tmp_path):
    build(wheel, tmp_path / "ui")
    with pytest.raises(InputError, match=r"min_words 3 \(now 4\), source 'de' \(now 'fr'\); .*--overwrite"):
        build(wheel, tmp_path / "ui", source="fr", min_words=4)
    build(wheel, tmp_path / "ui", source="fr", overwrite=True)
    assert not (tmp_path / "ui" / "train.de").exists()
    assert (tmp_path / "ui" / "train.fr").exists()


def test_language_pairs_share_the_split(wheel, tmp_path):
    build(wheel, tmp_path / "de-en")
    build(wheel, tmp_path / "en-fr", source="en", target="fr")
    build(wheel, tmp_path / "nl-fr", source="nl", target="fr")
    assert read(tmp_path / "de-en", "en") == read(tmp_path / "en-fr", "en")
    full, partial = read(tmp_path / "en-fr", "fr"), read(tmp_path / "nl-fr", "fr")
    for split in SPLITS:
        assert partial[split]
        assert set(partial[split]) < set(full[split])


def test_text_is_cleaned_and_placeholders_stay(make_wheel, strings, tmp_path):
    odd = {
        "de": {
            "lines": "Öffne {url}\n\n1. Gerät [%key:common::add%]\u2028fertig",
            "copy": "Gleich in beiden Sprachen",
            "empty": "  ",
            "short": "Nur zwei",
            "only_german": "Das gibt es nur hier",
            "number": "Drei kleine Worte",
            "not_text": 7,
        },
        "en": {
            "lines": "Open {url}\r\n\r\n1. device [%key:common::add%] done",
            "copy": "Gleich in beiden Sprachen",
            "empty": "Nothing on the other side",
            "short": "Only two",
            "number": ["no", "text"],
        },
    }
    wheel = make_wheel({**strings, "odd": odd})
    manifest, _ = build(wheel, tmp_path / "ui", expected_sha256=files.sha256(wheel))
    pairs = [
        pair
        for split in SPLITS
        for pair in text_files.read_parallel(tmp_path / "ui" / f"{split}.de", tmp_path / "ui" / f"{split}.en")
        if "{url}" in pair[0]
    ]
    assert pairs == [
        (
            "Öffne {url} 1. Gerät [%key:common::add%] fertig",
            "Open {url} 1. device [%key:common::add%] done",
        )
    ]
    assert manifest["keys_in_one_language_only"] == 2
    counts = manifest["dropped"]
    assert (counts["copy"], counts["empty"]) == (1 + len(strings), 1)  # the brands are copies too
    kept = build(wheel, tmp_path / "copies", expected_sha256=files.sha256(wheel), keep_copies=True, min_words=1)[0]
    assert (kept["dropped"]["copy"], kept["dropped"]["short"]) == (0, 0)


def test_no_near_copy_crosses(make_wheel, strings, tmp_path):
    for component, languages in strings.items():
        other = f"{component}_copy"
        strings = {**strings, other: {}}
        for language, tree in languages.items():
            step = {
                key: text.upper().replace(".", " {count}!") for key, text in list(tree["config"]["step"].items())[:3]
            }
            strings[other][language] = {"config": step}
    wheel = make_wheel(strings)
    manifest, _ = build(wheel, tmp_path / "ui", expected_sha256=files.sha256(wheel))
    assert manifest["dropped"]["near_copy_of_test"] > 5
    assert manifest["dropped"]["near_copy_of_valid"] > 5
    for language in ("de", "en"):
        simplified = {split: {*map(simplify, lines)} for split, lines in read(tmp_path / "ui", language).items()}
        assert not simplified["train"] & (simplified["valid"] | simplified["test"])
        assert not simplified["valid"] & simplified["test"]


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("DE", "'DE' is not in this corpus; nearest: de; available: de, en, fr, nl"),
        ("fr-CA", "nearest: fr; available"),
        ("en_US", "nearest: en; available"),
        ("xx", "'xx' is not in this corpus; available: de, en, fr, nl"),
    ],
)
def test_unknown_language_names_the_nearest(wheel, tmp_path, language, message):
    with pytest.raises(InputError, match=re.escape(message)):
        build(wheel, tmp_path / "ui", source="fr" if language != "fr-CA" else "en", target=language)
    assert not (tmp_path / "ui").exists()


def test_too_little_text_is_reported(make_wheel, strings, tmp_path):
    strings["component_0"]["ga"] = {"config": {"step": {"key_0": "trí fhocal anseo"}}}
    wheel = make_wheel(strings)
    with pytest.raises(InputError, match="1 usable pairs of ga-en leave none for"):
        build(wheel, tmp_path / "ui", source="ga", expected_sha256=files.sha256(wheel))


@pytest.mark.parametrize("option", ["min_words", "valid_size", "test_size"])
def test_sizes_must_be_positive(wheel, tmp_path, option):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')} is 0; give a number of at least 1"):
        build(wheel, tmp_path / "ui", **{option: 0})


def test_wheel_with_another_hash_is_refused_and_left_alone(make_wheel, strings, tmp_path):
    wheel = make_wheel(strings)
    with pytest.raises(InputError, match=f"has SHA-256 {files.sha256(wheel)}, not 7ca5fbde.*; remove it and run"):
        build(wheel, tmp_path / "ui")
    assert wheel.exists()


def test_default_cache_dir(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(wheels.default_cache_dir()) == "/somewhere/nemo_distill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert str(wheels.default_cache_dir()) == "/home/me/.cache/nemo_distill"


def test_command_line_round_trip(wheel, tmp_path, capsys):
    command = ["corpus", "ui-strings", "--source", "de", "--target", "en", "--output-dir", str(tmp_path / "ui")]
    command += ["--cache-dir", str(wheel.parent), "--valid-size", "40", "--test-size", "40"]
    assert cli.main(command) == 0
    assert re.search(r"ui-strings de-en, pairs: train \d+, valid 40, test 40 \(written\)", capsys.readouterr().out)
    assert cli.main(command) == 0
    assert "already there, hashes verified" in capsys.readouterr().out
    assert cli.main([*command, "--seed", "3"]) == 2
    assert "seed 0 (now 3)" in capsys.readouterr().err
    assert cli.main([*command, "--seed", "3", "--overwrite"]) == 0


class Index(http.server.BaseHTTPRequestHandler):
    """A package index with one wheel, on this machine; sends half of it while `server.broken` is set."""

    def do_GET(self):
        content = self.server.wheel.read_bytes()
        if self.path.endswith(".whl"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.server.broken == "stalls":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.server.half_sent.set()
                self.server.may_end.wait(60)
            elif self.server.broken == "breaks off":
                self.wfile.write(content[: len(content) // 2])
            else:
                self.wfile.write(content)
        else:
            page = f'<a href="/{self.server.wheel.name}">{self.server.wheel.name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def index(make_wheel, strings, tmp_path, monkeypatch):
    """Serve a made-up wheel as the only package index that pip knows."""
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    server.wheel, server.broken = make_wheel(strings, tmp_path / "index"), None
    server.half_sent, server.may_end = threading.Event(), threading.Event()
    threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05), daemon=True).start()
    settings = {
        "CONFIG_FILE": os.devnull,
        "INDEX_URL": f"http://127.0.0.1:{server.server_port}/simple",
        "NO_CACHE_DIR": "1",
        "RETRIES": "0",
        "RESUME_RETRIES": "0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setattr(wheels, "WHEEL_SHA256", files.sha256(server.wheel))
    yield server
    server.may_end.set()
    server.shutdown()
    server.server_close()


def test_wheel_is_fetched_once(index, tmp_path):
    wheel = wheels.fetch_wheel(tmp_path / "cache").path
    assert wheel.read_bytes() == index.wheel.read_bytes()
    index.wheel.unlink()
    assert wheels.fetch_wheel(tmp_path / "cache").path == wheel
    assert list((tmp_path / "cache").iterdir()) == [wheel]


def test_download_that_breaks_off_leaves_nothing_and_can_be_repeated(index, tmp_path):
    index.broken = "breaks off"
    with pytest.raises(ConnectionError, match=r"pip could not fetch .* put the wheel at '.*cache"):
        wheels.fetch_wheel(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    index.broken = None
    assert wheels.fetch_wheel(tmp_path / "cache").path.read_bytes() == index.wheel.read_bytes()


def test_download_that_is_killed_leaves_no_wheel(index, tmp_path):
    index.broken = "stalls"
    code = f"from nemo_distill.data.corpora import wheel as wheels; wheels.fetch_wheel({str(tmp_path / 'cache')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        assert index.half_sent.wait(60)
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == 2
    assert all(path.name.startswith(".") for path in left)
    index.broken = None
    wheel = wheels.fetch_wheel(tmp_path / "cache").path
    assert wheel.read_bytes() == index.wheel.read_bytes()
    assert list((tmp_path / "cache").iterdir()) == [wheel]


def test_downloaded_wheel_with_another_hash_is_refused(index, tmp_path):
    with pytest.raises(InputError, match=f"has SHA-256 .*, not {'0' * 64}, and was not kept"):
        wheels.fetch_wheel(tmp_path / "cache", expected_sha256="0" * 64)
    assert not (tmp_path / "cache").exists()


def test_no_network_gives_status_1_and_the_next_step(index, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    command = ["corpus", "ui-strings", "--source", "de", "--target", "en", "--output-dir", str(tmp_path / "ui")]
    assert cli.main([*command, "--cache-dir", str(tmp_path / "cache")]) == 1
    error = capsys.readouterr().err
    assert "check the network" in error
    assert str(tmp_path / "cache" / wheels.WHEEL_NAME) in error
