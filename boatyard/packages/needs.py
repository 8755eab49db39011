"""What a package needs of the machine that runs it: refused by name where it is not met, before anything is loaded."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from boatyard.errors import ArtifactError
from boatyard.packages.manifest import Needs

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """What is here: the processor's kind and flags, ONNX Runtime's version and its providers."""

    processor: str
    flags: frozenset[str]
    onnxruntime: str
    providers: tuple[str, ...]


def check(name: str, needs: Needs, engine: str, machine: Machine | None = None) -> None:
    """Raise ArtifactError, naming the first need of a package that this machine or its engine does not meet."""
    if needs == Needs():
        return
    for expected, found, fix in unmet(needs, engine, machine or this_machine()):
        raise ArtifactError(f"package {name} needs {expected}, found {found}", fix=f"{fix}")


def unmet(needs: Needs, engine: str, machine: Machine) -> Iterator[tuple[str, str, str]]:
    """Give each need that is not met: what was expected, what was found, what to do."""
    if needs.engine and engine not in needs.engine:
        yield f"the engine {' or '.join(needs.engine)}", engine, f"serve it with --engine {needs.engine[0]}"
    if missing := [flag for flag in needs.cpu if flag not in machine.flags]:
        expected = f"a processor with {', '.join(missing)}"
        found = f"{machine.processor} without it" if machine.flags else f"{machine.processor}, which names no flags"
        yield expected, found, "run it on another node, or a package that was made for this one"
    if needs.provider and not set(needs.provider) & set(machine.providers):
        fix = "use an image whose ONNX Runtime has it"
        yield f"ONNX Runtime's {' or '.join(needs.provider)}", ", ".join(machine.providers), fix
    if needs.onnxruntime and _version(machine.onnxruntime) < _version(needs.onnxruntime):
        expected = f"ONNX Runtime {needs.onnxruntime} or later"
        yield expected, machine.onnxruntime, f"pip install 'onnxruntime>={needs.onnxruntime}', or use a later image"


def this_machine() -> Machine:
    """Return what is here."""
    import onnxruntime

    flags = frozenset(_flags(CPU_INFO.read_text()) if CPU_INFO.exists() else ())
    return Machine(platform.machine(), flags, onnxruntime.__version__, tuple(onnxruntime.get_available_providers()))


def _flags(text: str) -> list[str]:
    """Return the flags of the first processor: x86 calls them flags, ARM Features."""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return line[1].split() if line else []


def _version(text: str) -> tuple[int, ...]:
    """Return a version's numbers without zeros at the end; what is not a number ends them."""
    numbers = re.match(r"\d+(\.\d+)*?(?=(\.0+)*(?![.\d]))", text)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()
