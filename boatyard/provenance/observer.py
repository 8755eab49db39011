"""Sees what a step's own code reads while it runs: files, folders, modules, environment variables.

Python tells an audit hook of every `open`, listing, import and process started; `os.environ` is asked through a class
of ours. Code is told from ours by the call stack. What a C library opens by itself Python does not tell: such a file
counts when its name stands in the code or in the recipe's settings. Nothing here sees the network, the clock or chance.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

from boatyard.data import artifacts
from boatyard.provenance import inputs
from boatyard.provenance.code import OUTPUTS, digest, imports, named_files
from boatyard.provenance.inputs import ALL_NAMES, LARGE_BYTES, OF_A_SESSION, OR_ABSENT, Inputs, Stat, stat_of
from boatyard.provenance.modules import Modules, is_below

SYSTEM = ("/proc", "/sys", "/dev", "/etc", "/run")  # of the machine: what is read there is no input of a project
IMPORTING = "<frozen importlib._bootstrap>"
MAX_FRAMES = 200
FILE_NAME = re.compile(r"[\w-][\w./-]*\.[A-Za-z0-9]{1,11}")


class Observer:
    """What one process, and those that it forks, reads; `observing` makes one and takes what it saw."""

    def __init__(self, root: Path, events: Path) -> None:
        self.modules, self.root = Modules(root), str(root.absolute())
        self.events, self.started, self.process = events, time.time_ns(), os.getpid()
        self.read: dict[str, Stat | None] = {}
        self.written: set[str] = set()
        self.folders: dict[str, str] = {}
        self.tried: set[str] = set()
        self.variables: dict[str, str] = {}
        self.imported: set[str] = set()
        self.texts: set[str] = set()
        self._standing: dict[str, int] = {}
        self._busy = threading.local()
        self._apart = (*self.modules.standard, *self.modules.installed.written, *self._system())
        self._outer = _frames()

    def _system(self) -> Iterator[str]:
        return (folder for folder in SYSTEM if not is_below(self.root, (folder,)))

    # what Python tells

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event; one that comes of looking at another is nobody's."""
        take = EVENTS.get(event)
        if take is None or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            take(self, arguments)
        except (OSError, TypeError, ValueError, AttributeError, KeyError, RecursionError):
            pass  # an argument that is none: the call itself will say so
        finally:
            self._busy.now = False

    def _opened(self, arguments: tuple[Any, ...]) -> None:
        path, _, flags = arguments
        if isinstance(path, int) or (file := self._path(path)) in self.read or file in self.written:
            return
        if not self._counts(file):
            return
        if flags & os.O_TRUNC or flags & (os.O_WRONLY | os.O_RDWR) == os.O_WRONLY:
            self._note("written", file)
        else:
            self._note("read", file, stat_of(file))

    def _listed(self, arguments: tuple[Any, ...]) -> None:
        path = arguments[0] if arguments and arguments[0] is not None else "."
        if isinstance(path, int) or (folder := self._path(path)) in self.folders or not self._by_own():
            return
        if not (self._is_apart(folder) or self._is_output(folder)):
            self._note("folders", folder, inputs.listing(folder, Path(self.root)))

    def _executed(self, arguments: tuple[Any, ...]) -> None:
        file = getattr(arguments[0], "co_filename", "")
        if file and file not in self.read and self._stands(file) > 0:
            self._note("read", os.path.abspath(file), stat_of(file))

    def _imported(self, arguments: tuple[Any, ...]) -> None:
        name, file = arguments[0], arguments[1]
        if isinstance(file, str) and self._stands(file) > 0:  # an extension module: nothing of it is executed as code
            self._note("read", os.path.abspath(file), stat_of(file))
        if name not in self.tried and self._by_own(through_imports=True):
            self._note("tried", name)

    def _started(self, arguments: tuple[Any, ...]) -> None:
        command = arguments[1] if len(arguments) > 1 else arguments[0]
        words = shlex.split(os.fsdecode(command)) if isinstance(command, str | bytes) else map(os.fsdecode, command)
        if self._by_own():
            for file in (self._path(word) for word in words):
                if os.path.isfile(file) and not self._is_apart(file) and file not in self.read:
                    self._note("read", file, stat_of(file))

    def _renamed(self, arguments: tuple[Any, ...]) -> None:
        self._note("written", self._path(arguments[1]))

    def _connected(self, arguments: tuple[Any, ...]) -> None:
        if os.path.isfile(file := self._path(arguments[0])):
            self._opened((file, None, os.O_RDONLY))

    def variable(self, name: str) -> None:
        """Take that a variable is about to be read."""
        if name in self.variables or OF_A_SESSION.fullmatch(name) or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            if self._by_own():
                self._note("variables", name, inputs.value_of(dict(_original()), name))
        finally:
            self._busy.now = False

    def own_value(self, name: str) -> None:
        """Take that this process sets a variable: what it reads of it later is its own."""
        self.variables.setdefault(name, "")

    # who reads

    def _stands(self, file: str) -> int:
        """Say whose code a file is: 1 a project's or a plug-in's, -1 ours, 0 Python's or a library's."""
        standing = self._standing.get(file)
        if standing is None:
            standing = self._standing[file] = self._look(file)
        return standing

    def _look(self, file: str) -> int:
        if file.startswith("<") or not os.path.isabs(file):
            return 0
        if self.modules.is_library(file):
            return -1
        if is_below(file, self.modules.installed.written):
            return 1 if self.modules.is_plugin(file) else 0
        return 1 if self.modules.is_own(file) else 0

    def _by_own(self, *, through_imports: bool = False) -> bool:
        return self._reader(through_imports) > 0

    def _reader(self, through_imports: bool = False) -> int:
        """Say who reads: 1 where a project's code or a plug-in's stands in the stack, -1 ours, 0 nobody known.

        What a library reads while it is imported is the library's.
        """
        found = 0
        frame: FrameType | None = sys._getframe(1)
        for _ in range(MAX_FRAMES):
            if frame is None:
                break
            standing = self._stands(frame.f_code.co_filename)
            if frame in self._outer:  # below the stage: whoever runs it
                return -1
            if standing > 0:
                return 1
            if frame.f_code.co_filename == IMPORTING and not through_imports:
                return -1
            if standing < 0 and not frame.f_code.co_filename.startswith(HERE):
                found = -1
            frame = frame.f_back
        return found

    def _counts(self, file: str) -> bool:
        """Say whether an open file is an input: read by own code, or below the project and not by ours."""
        if self._is_apart(file):
            return False
        reader = self._reader()
        return reader > 0 or (reader == 0 and file.startswith(self.root + os.sep))

    def _is_apart(self, file: str) -> bool:
        if self.modules.is_library(file) or f"{os.sep}__pycache__{os.sep}" in file:
            return True
        return is_below(file, self._apart) and not self.modules.is_plugin(file)

    def _is_output(self, folder: str) -> bool:
        """Say whether a folder is what runs of the project leave: one of its own, with no code in it."""
        top = os.path.relpath(folder, self.root).partition(os.sep)[0]
        place = os.path.join(self.root, top)
        return top in OUTPUTS and not any(name.endswith(".py") for name in os.listdir(place))

    def _path(self, path: Any) -> str:
        return os.path.abspath(os.fsdecode(path))

    def _note(self, kind: str, name: str, value: Any = None) -> None:
        """Keep what was seen; a forked process writes it down for the one that it comes of."""
        self._keep(kind, name, value)
        if os.getpid() != self.process:
            line = json.dumps([kind, name, value]) + "\n"
            handle = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(handle, line.encode())
            os.close(handle)

    def _keep(self, kind: str, name: str, value: Any) -> None:
        into = getattr(self, kind)
        if isinstance(into, set):
            into.add(name)
        else:
            into.setdefault(name, tuple(value) if isinstance(value, list) else value)

    # what was seen

    def inputs(self) -> Inputs:
        """Return what the step's result depends on; digests are of what was read, or it is said to have changed."""
        self._busy.now = True
        try:
            self._take_in_forked()
            return self._inputs(self._used())
        finally:
            self._busy.now = False

    def _used(self) -> dict[str, str]:
        """Return the own modules that were executed in this step, and those that they import, each with its file."""
        own = {name: os.path.abspath(file) for name, file in self.modules.loaded() if self._stands(file) >= 0}
        used: dict[str, str] = {}
        waiting = [name for name, file in own.items() if file in self.read]
        while waiting:
            name = waiting.pop()
            if name in own and name not in used:
                used[name] = own[name]
                found, texts = imports(self.modules, name, own[name])
                self.imported |= set(found)
                self.texts |= texts
                waiting += found
        return used

    def _inputs(self, own: dict[str, str]) -> Inputs:
        owners = {self._owner(name) for name in (*own, *self.tried, *self.imported)} if own else set()
        distributions = {owner.name for owner in owners if owner}
        files, stats, unsettled = self._files({*self._named()} if own else set())
        code = {file: self.modules.place(file, name.partition(".")[0]) for name, file in own.items()}
        files = {self._relative(file): value for file, value in files.items() if file not in code}
        files |= {place: digest(file) for file, place in code.items() if not place.startswith(":")}
        files |= {self._relative(file): "" for file in self._absent(own)}
        plugins = [name for name in distributions if self.modules.installed.by_name[name].plugin_tops]
        return Inputs(
            files=dict(sorted(files.items())),
            folders={self._relative(path): value for path, value in sorted(self.folders.items())},
            modules={place: digest(file) for file, place in sorted(code.items()) if place.startswith(":")},
            distributions={name: self.modules.installed.version(name) for name in sorted(distributions)},
            plugins=tuple(sorted(plugins)),
            variables={name: value for name, value in sorted(self.variables.items()) if value},
            missing=self._missing(own),
            stats={self._relative(path): stat for path, stat in sorted(stats.items())},
            unsettled=tuple(sorted(map(self._relative, unsettled))),
        )

    def _files(self, named: set[str]) -> tuple[dict[str, str], dict[str, Stat], list[str]]:
        files, stats, unsettled = {}, {}, []
        for file, before in {**{file: stat_of(file) for file in named}, **self.read}.items():
            now = stat_of(file)
            if os.path.isdir(file) or (now is None and not file.startswith(self.root + os.sep)):
                continue  # what a step made for itself and removed
            if before is None and file in self.written:
                files[file] = OR_ABSENT + digest(file)
                continue
            files[file] = digest(file)
            if before != now or stat_of(file) != now:
                unsettled.append(file)
            elif now and now[0] >= LARGE_BYTES:
                stats[file] = now
        return files, stats, unsettled

    def _absent(self, own: dict[str, str]) -> Iterator[str]:
        """Give the files that code names and that are not there, beside it or in the project's folder.

        Whether a file exists Python tells nobody: code that only looks, and goes on without it, is seen by this.
        """
        folders = {self.root, *(os.path.dirname(file) for file in own.values())}
        for text in filter(FILE_NAME.fullmatch, self.texts):
            for file in (os.path.normpath(os.path.join(folder, text)) for folder in folders):
                if file not in self.written and not os.path.lexists(file):
                    yield file

    def _named(self) -> Iterator[str]:
        """Give the files that code names and that were there before the step; one that it wrote is a result."""
        for file in named_files(Path(self.root), self.texts):
            stat = stat_of(file)
            if stat and stat[2] <= self.started and file not in self.written:
                yield file

    def _missing(self, own: dict[str, str]) -> tuple[str, ...]:
        """Return the top-level modules that own code looked for in vain."""
        tops = {name.partition(".")[0] for name in self.tried} - {name.partition(".")[0] for name in sys.modules}
        return tuple(sorted(top for top in tops if top.isidentifier() and not self.modules.top(top))) if own else ()

    def _owner(self, name: str) -> Any:
        file = getattr(sys.modules.get(name), "__file__", None)
        return self.modules.owner(file) if isinstance(file, str) and not self.modules.is_library(file) else None

    def _relative(self, file: str) -> str:
        inside = file == self.root or file.startswith(self.root + os.sep)
        return os.path.relpath(file, self.root).replace(os.sep, "/") if inside else file

    def _take_in_forked(self) -> None:
        if self.events.is_file():
            for line in self.events.read_text().splitlines():
                self._keep(*json.loads(line))
            self.events.unlink()


def _frames() -> set[FrameType]:
    """Return the frames of this thread's stack; kept whole, since the identity of one that ended is given again."""
    found: set[FrameType] = set()
    frame: FrameType | None = sys._getframe()
    while frame:
        found.add(frame)
        frame = frame.f_back
    return found


HERE = os.path.dirname(__file__) + os.sep
EVENTS: dict[str, Callable[[Observer, tuple[Any, ...]], None]] = {
    "open": Observer._opened,
    "os.listdir": Observer._listed,
    "os.scandir": Observer._listed,
    "exec": Observer._executed,
    "import": Observer._imported,
    "subprocess.Popen": Observer._started,
    "os.system": Observer._started,
    "os.posix_spawn": Observer._started,
    "os.rename": Observer._renamed,
    "sqlite3.connect": Observer._connected,
}
_observer: Observer | None = None
_hooked = False


class ObservedEnvironment(os._Environ[Any]):
    """The environment, which tells who is observing what is read of it; the object stays what everybody holds."""

    def __getitem__(self, key: Any) -> Any:
        """Return a variable's value."""
        if _observer:
            _observer.variable(os.fsdecode(key))
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        """Give the variables' names."""
        if _observer:
            _observer.variable(ALL_NAMES)
        return super().__iter__()

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a variable."""
        if _observer:
            _observer.own_value(os.fsdecode(key))
        super().__setitem__(key, value)


def _original() -> Iterator[tuple[str, str]]:
    """Give the variables without telling anybody."""
    data = cast(Any, os.environ)._data
    return ((os.fsdecode(name), os.fsdecode(value)) for name, value in data.items())


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _observer is not None:
        _observer.hear(event, arguments)


@contextlib.contextmanager
def observing(root: Path, file: Path | None) -> Iterator[None]:
    """Within the block see what own code reads; without an error it is written to `file` at the end. None sees nothing.

    An audit hook stays for the life of the process; outside of the block it does nothing.
    """
    global _observer, _hooked
    if file is None or _observer is not None:
        yield
        return
    observer = Observer(root, file.with_name(f"{file.name}.forked"))
    kinds = [(environment, environment.__class__) for environment in (os.environ, os.environb)]
    for environment, _ in kinds:
        environment.__class__ = ObservedEnvironment
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    _observer = observer
    try:
        yield
    finally:
        _observer = None
        for environment, kind in kinds:
            environment.__class__ = kind
    artifacts.write_json(file, observer.inputs().values())


def name(texts: Iterable[str]) -> None:
    """Take texts of a recipe's settings, which may name files as those in its code may."""
    if _observer is not None:
        _observer.texts |= set(texts)
