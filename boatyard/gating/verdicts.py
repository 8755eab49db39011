"""A verdict and its rules: what a gate says, with every number, as verdict.json holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from boatyard.data import artifacts
from boatyard.errors import ArtifactError

FILE = "verdict.json"
LATER = ("alias", "gate")  # fields that verdicts were once written without


@dataclass(frozen=True)
class Rule:
    """One rule's outcome: `margin` is found - wanted (wanted - found for a maximum), so negative is what is missing.

    `found` and `margin` are None where there is no such number, which never passes.
    """

    name: str
    wanted: float | None
    found: float | None
    margin: float | None
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: yes or no, one sentence, every rule, and the digests of what it is about.

    `notes` qualify it without changing it. `digests` has graph, dataset, report, seal and, where compared, production:
    what `alias` stood on. A push that finds it on another version asks for another verdict. `gate` is the section that
    the report was held against.
    """

    passed: bool
    sentence: str
    rules: tuple[Rule, ...]
    notes: tuple[str, ...]
    digests: dict[str, str]
    alias: str = ""
    gate: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write verdict.json, whole or not at all."""
        artifacts.write_json(path, {"format": 1, "kind": "verdict", **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """Read verdict.json; raises ArtifactError when it is not one, or says yes where a rule says no."""
        value = artifacts.read_json(path)
        if not isinstance(value, dict) or value.get("kind") != "verdict" or value.get("format") != 1:
            raise ArtifactError(f"{path}: expected a verdict of format 1", fix="run the gate again")
        try:
            given = {each.name: value[each.name] for each in fields(cls) if each.name not in LATER}
            given |= {"alias": str(value.get("alias", "")), "gate": dict(value.get("gate", {}))}
            given["rules"] = tuple(Rule(**rule) for rule in given["rules"])
            verdict = cls(**{**given, "notes": tuple(given["notes"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path} is not a verdict of this version ({error})", fix="run the gate again"
            ) from error
        if not verdict.rules or verdict.passed is not all(rule.passed is True for rule in verdict.rules):
            raise ArtifactError(f"{path} contradicts its own rules", fix="it was changed, run the gate again")
        return verdict


def verdict(rules: tuple[Rule, ...], notes: tuple[str, ...], digests: dict[str, str], alias: str = "") -> Verdict:
    """Say yes when every rule does; the sentence has the rules that say no, or else all of them."""
    failed = [rule for rule in rules if not rule.passed]
    told = "; ".join(rule.sentence for rule in failed or rules)
    return Verdict(not failed, f"{'refused' if failed else 'passed'}: {told}", rules, notes, digests, alias)


def shown(number: float) -> str:
    """Show a number with four decimals, or as many digits as it needs not to look like 0."""
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e6 else f"{number:.4g}"


def shown_margin(number: float) -> str:
    """Show how far a number is on the right side of its bound: +0.0347, or −0.0085 on the wrong one."""
    return signed(f"{'-' if number < 0 else '+'}{shown(abs(number))}")


def signed(number: str) -> str:
    return number.replace("-", "−")
