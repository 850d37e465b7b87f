"""The files of an OpenDSS circuit as a list of statements, each with its place, and what has no business in them.

Nothing is executed. Files stay inside the package's folder; commands that run programs, load libraries, write files or
leave the folder are problems that name file and line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from derms.errors import Problem
from feeders.vocabulary import (
    COMMANDS,
    FILE_PROPERTIES,
    FOREIGN_OPTIONS,
    LIBRARY_PROPERTIES,
    OF_A_CIRCUIT,
    OPTIONS,
    whole,
)

FILES_MAX = 1000
REDIRECTS_DEEP_MAX = 20
UNREAD_SHOWN = 40
LINES_MAX = 1_000_000
"""Of all files together: a file may be redirected to more than once."""
FILE_BYTES_MAX = 50_000_000

_QUOTED = r"""(?:"[^"]*"?|'[^']*'?|\([^)]*\)?|\[[^\]]*\]?|\{[^}]*\}?)"""
_COMMENT = re.compile(rf"((?<![^\s=,]){_QUOTED})|!.*|(?<!\S)//.*")
_LINE_END = re.compile(r"\r\n|\r|\n")
_WORD = re.compile(rf"(?:(?P<name>{_QUOTED}|[^\s=,]+)\s*=\s*)?(?:(?P<quoted>{_QUOTED})|(?P<bare>[^\s,=]*))")
_AFTER_QUOTED, _AFTER_BARE = re.compile(r",?\s*"), re.compile(r"[\s=]*,?\s*")
_FILE_IN_ARRAY = re.compile(rf"""\b(?:{"|".join(FILE_PROPERTIES)})\s*=\s*["']?(?P<name>[^\s,"')\]]+)""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    file: str
    """Relative to the package's folder."""
    line: int

    def problem(self, wrong: str, right: str) -> Problem:
        return Problem(self.file, f"line {self.line}", wrong, right)


@dataclass(frozen=True, slots=True)
class Word:
    """`name=value` of a statement, or a value alone; quotes and brackets are taken off."""

    name: str
    """Lower case; empty for a value alone."""
    value: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of a circuit's files."""

    command: str
    """The whole command, lower case; empty for `Line.l1.enabled=no` and its like."""
    words: tuple[Word, ...]
    """What follows the command."""
    place: Place


@dataclass
class Script:
    """What a circuit's files say, in the order in which an engine would read them."""

    folder: Path
    """They may not leave it."""
    statements: list[Statement] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True
    """Whether every file could be read: names that are missing may stand in one that could not."""
    files: dict[Path, bytes] = field(default_factory=dict)
    """Each file with what was read from it, in order of first use."""

    @property
    def digest(self) -> str:
        """SHA-256 over name, length and content of every file, in order."""
        total = sha256()
        for path, content in self.files.items():
            total.update(f"{path.relative_to(self.folder).as_posix()}\0{len(content)}\0".encode())
            total.update(content)
        return total.hexdigest()


def read_script(master: Path, folder: Path) -> Script:
    """Read a circuit's master file and everything that it redirects to; what is wrong is in `problems`."""
    script = Script(folder.resolve())
    _Reader(script).circuit_file(master, None, ())
    return script


class _Reader:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.lines = 0

    def circuit_file(self, path: Path, asked: Place | None, parents: tuple[Path, ...]) -> None:
        """Read a file of statements, named by a redirect at `asked` from within `parents`."""
        content = self._content(path, asked)
        if content is None:
            self.script.complete = False
            return
        real = path.resolve()
        if real in parents or len(parents) >= REDIRECTS_DEEP_MAX or self.lines > LINES_MAX:
            self.script.complete = False
            wrong = "redirects to itself" if real in parents else "redirects too deep, or too often"
            self._unreadable(path, asked, wrong, "break the circle")
            return
        name = real.relative_to(self.script.folder).as_posix()
        for place, text in _lines(name, content.decode("utf8", errors="replace")):
            self._line(place, text, real.parent, (*parents, real))

    def _content(self, path: Path, asked: Place | None) -> bytes | None:
        """Bytes of a file of the folder, read once; None, with the reason among the problems, when it cannot be had."""
        try:
            real = path.resolve()
            if not real.is_relative_to(self.script.folder):
                self._unreadable(path, asked, "lies outside the package's folder", "put it into the folder")
            elif real in self.script.files:
                return self.script.files[real]
            elif real.exists() and not real.is_file():
                self._unreadable(path, asked, "is no file", "name a file")
            elif real.stat().st_size > FILE_BYTES_MAX or len(self.script.files) >= FILES_MAX:
                self._unreadable(path, asked, "is too long, or one file too many", "split the circuit")
            else:
                self.script.files[real] = real.read_bytes()
                return self.script.files[real]
        except (OSError, ValueError, RuntimeError) as error:  # a name that cannot be one, links in a circle
            wrong = (error.strerror if isinstance(error, OSError) else None) or "cannot be read"
            self._unreadable(path, asked, wrong[0].lower() + wrong[1:], "give a readable file")
        return None

    def _unreadable(self, path: Path, asked: Place | None, wrong: str, right: str) -> None:
        name = path.name.replace("\0", "?")
        found = asked.problem(f"{name} {wrong}", right) if asked else Problem(name, "file", wrong, right)
        if found not in self.script.problems:
            self.script.problems.append(found)

    def _line(self, place: Place, text: str, beside: Path, parents: tuple[Path, ...]) -> None:
        self.lines += 1
        words, unread = _words(text)
        if unread:
            wrong = "an empty value, at which OpenDSS stops reading; unread"
            self._report(place, f"{wrong}: {unread[:UNREAD_SHOWN]}", "take out the empty value, or the comma too many")
        command = "" if not words or words[0].name else whole(words[0].value, COMMANDS)
        if command and command not in OF_A_CIRCUIT:
            known = "has no place in a circuit" if command in COMMANDS else "is no command of OpenDSS"
            self._report(place, f"{words[0].value!r} {known}", "take the line out")
        elif command in ("redirect", "compile"):
            target = words[1].value.replace("\\", "/") if words[1:] else ""
            self.circuit_file(beside / target, place, parents)
        elif words:
            words = words[1:] if command else words
            self._check_words(command, words, place, beside)
            self.script.statements.append(Statement(command, words, place))

    def _check_words(self, command: str, words: tuple[Word, ...], place: Place, beside: Path) -> None:
        for word in words:
            last = word.name.rpartition(".")[2]
            if command == "set" and whole(word.name, OPTIONS) in FOREIGN_OPTIONS:
                self._report(place, f"option {word.name!r} has no place in a circuit", "take the option out")
            if word.value and len(last) >= 3 and any(name.startswith(last) for name in LIBRARY_PROPERTIES):
                self._report(
                    place, f"{word.name}= loads a library into the engine", "take it out; use a built-in model"
                )
            if "@" in word.value[:1]:
                self._report(place, f"variable {word.value!r} is not followed here", "write its value")
        for name in _data_files(command, words):
            self._content(beside / name.replace("\\", "/"), place)

    def _report(self, place: Place, wrong: str, right: str) -> None:
        self.script.problems.append(place.problem(wrong, right))


def _lines(file: str, text: str) -> Iterator[tuple[Place, str]]:
    """Lines with something on them, without comments; `/*` at the start of a line opens a comment over lines."""
    inside = False
    for number, line in enumerate(_LINE_END.split(text), 1):
        inside = inside or line.startswith("/*")
        if inside:
            inside = "*/" not in line
        elif bare := _COMMENT.sub(lambda match: match[1] or "", line).strip():
            yield Place(file, number), bare


def _words(text: str) -> tuple[tuple[Word, ...], str]:
    """Words of a line, and what OpenDSS does not read of it: everything behind an empty value."""
    words: list[Word] = []
    position = 0
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None:
            break
        value = _unquoted(match["quoted"]) if match["quoted"] else match["bare"]
        after = (_AFTER_QUOTED if match["quoted"] else _AFTER_BARE).match(text, match.end())
        position = after.end() if after else match.end()
        if match["name"] or value:
            words.append(Word(_unquoted(match["name"] or "").lower(), value))
        if not value:
            break
    return tuple(words), text[position:].strip()


def _unquoted(text: str) -> str:
    if text[:1] not in tuple("\"'([{"):
        return text
    closed = len(text) > 1 and text[-1] == {"(": ")", "[": "]", "{": "}"}.get(text[0], text[0])
    return text[1 : -1 if closed else None].strip()


def _data_files(command: str, words: tuple[Word, ...]) -> Iterator[str]:
    if command in ("buscoords", "latlongcoords", "giscoords"):
        yield from (word.value for word in words[:1])
    for word in words:
        if word.value and len(word.name) >= 3 and any(name.startswith(word.name) for name in FILE_PROPERTIES):
            yield word.value
        elif "=" in word.value:
            yield from (match["name"] for match in _FILE_IN_ARRAY.finditer(word.value))
