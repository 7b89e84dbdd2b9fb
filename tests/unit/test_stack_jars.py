"""The lock file of Kafka's jars, and what happens to a jar that is not the locked one."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from rich.console import Console

from veilstream.contracts.errors import ConfigError, StackError
from veilstream.stack import jars as subject
from veilstream.stack.files import shipped
from veilstream.stack.jars import Jar, download_jars, format_lock, parse_lock, resolve_jars, verify_jars

ONE = hashlib.sha256(b"one").hexdigest()
TWO = hashlib.sha256(b"two").hexdigest()
JARS = (Jar("org.a", "one", "1.0", ONE), Jar("org.b", "two", "2.0", TWO))


def put(folder: Path, **content: bytes) -> Path:
    """A cache folder with these files: one="…" is one-1.0.jar."""
    for name, data in content.items():
        jar = next(jar for jar in JARS if jar.artifact == name)
        (folder / jar.file_name).write_bytes(data)
    return folder


def test_the_lock_file_reads_back_as_written() -> None:
    text = f"# a comment\n\norg.b:two:2.0 {TWO}\norg.a:one:1.0 {ONE}\n"
    assert parse_lock(text) == (JARS[1], JARS[0])
    assert format_lock(parse_lock(text)).splitlines()[1:] == [f"org.a:one:1.0 {ONE}", f"org.b:two:2.0 {TWO}"]


def test_the_shipped_lock_file_holds_the_broker_and_names_no_place() -> None:
    text = shipped(subject.LOCK_FILE).read_text(encoding="utf-8")
    coordinates = [jar.coordinate for jar in parse_lock(text)]
    assert set(subject.ROOTS) <= set(coordinates)
    assert coordinates == sorted(coordinates)
    assert "http" not in text and "/" not in text


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(f"org.a:one {ONE}", id="no version"),
        pytest.param("org.a:one:1.0", id="no digest"),
        pytest.param(f"org.a:one:1.0 {ONE[:-1]}", id="short digest"),
        pytest.param(f"org.a:one:1.0 {ONE[:-1]}G", id="not hex"),
        pytest.param(f"org.a::1.0 {ONE}", id="empty artifact"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(ConfigError, match=r"jars\.lock, line 2: not .* make lock"):
        parse_lock(f"# head\n{line}\n")


def test_an_empty_lock_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"names no jar.*make lock"):
        parse_lock("# head\n")


def test_complete_jars_are_accepted(tmp_path: Path) -> None:
    verify_jars(put(tmp_path, one=b"one", two=b"two"), JARS)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"two-2\.0\.jar is not the jar that was locked.*org\.b:two:2\.0"):
        verify_jars(put(tmp_path, one=b"one", two=b"twp"), JARS)


def test_a_missing_jar_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"one-1\.0\.jar is missing"):
        verify_jars(put(tmp_path, two=b"two"), JARS)


def served(monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]) -> None:
    """Let downloads give this content, by artifact; what is not there cannot be had."""

    def fetcher(repository: Path):  # type: ignore[no-untyped-def]
        def fetch(jar: Jar) -> Path:
            if jar.artifact not in content:
                raise RuntimeError("not found in remote repositories")
            path = repository / jar.file_name
            path.write_bytes(content[jar.artifact])
            return path

        return fetch

    monkeypatch.setattr(subject, "_fetcher", fetcher)


def test_a_download_is_verified_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, {"one": b"one", "two": b"somebody else's"})
    with pytest.raises(StackError, match="not the jar that was locked"):
        download_jars(JARS, tmp_path / "cache", console=Console(file=io.StringIO()))
    assert not (tmp_path / "cache" / "two-2.0.jar").exists()


def test_a_complete_download_leaves_only_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, {"one": b"one", "two": b"two"})
    download_jars(JARS, tmp_path, console=Console(file=io.StringIO()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one-1.0.jar", "two-2.0.jar"]


def test_a_jar_that_cannot_be_had_is_named_with_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served(monkeypatch, {"one": b"one"})
    with pytest.raises(StackError, match=r"org\.b:two:2\.0 could not be downloaded.*VEIL_KAFKA_JARS"):
        download_jars(JARS, tmp_path, console=Console(file=io.StringIO()))


def test_a_named_folder_is_the_class_path(tmp_path: Path) -> None:
    (tmp_path / "kafka_2.13-9.9.9.jar").touch()
    assert resolve_jars({"VEIL_KAFKA_JARS": str(tmp_path)}) == f"{tmp_path}/*"


def test_a_named_folder_without_kafka_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"VEIL_KAFKA_JARS names .*holds no kafka_2\.13"):
        resolve_jars({"VEIL_KAFKA_JARS": str(tmp_path)})
