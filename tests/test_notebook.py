"""The Python API in a real Jupyter kernel, where an event loop runs: the docs' page, and runs in every way."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Kernel, kernel

from boatyard.running import runs

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
KINDS = {"daisy": (1.5, 0.3, "white"), "rose": (4.5, 1.4, "red"), "tulip": (6.0, 2.1, "yellow")}
SET = "{'train.epochs': 3, 'train.learning_rate': 0.02}"


def write_flowers(path: Path, rows: int = 1200) -> None:
    """Write a table of three kinds of flowers that anything can tell apart."""
    rng, lines = random.Random(0), ["length,width,colour,label"]
    for number in range(rows):
        kind = list(KINDS)[number % 3]
        length, width, colour = KINDS[kind]
        seen = rng.choice([colour, colour, "pink"])
        lines.append(f"{rng.gauss(length, 0.3):.3f},{rng.gauss(width, 0.1):.3f},{seen},{kind}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel beside flowers.csv."""
    write_flowers(tmp_path / "flowers.csv")
    with kernel(tmp_path) as started:
        yield started


def blocks() -> list[str]:
    """Return the page's Python, but what it says needs a cluster."""
    text = re.sub(r"<!-- not run here.*?-->\n```python\n.*?```", "", PAGE.read_text(), flags=re.S)
    return re.findall(r"```python\n(.*?)```", text, flags=re.S)


def test_stages_run_in_a_kernel_with_bars_below_the_cell_and_the_report_is_the_page(notebook: Kernel) -> None:
    assert not notebook.run("import boatyard; boatyard.init('flowers', data='flowers.csv')").error
    trained = notebook.run(f"data = boatyard.preprocess('flowers'); t = boatyard.train('flowers', data, set={SET})")
    assert not trained.error and "<progress" in trained.html[-1] and "✓" in trained.html[-1]
    page = notebook.run("report = boatyard.evaluate('flowers', data, t)\nreport").html[-1]
    assert page.startswith("<iframe srcdoc=") and "&lt;style" in page, "its style stays in its frame"
    accuracy = notebook.run("report.metrics['accuracy']").text
    assert re.match(r"[01]\.\d+ \[0\.\d+, [01]\.\d+\] Clopper-Pearson", accuracy)


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(notebook: Kernel) -> None:
    assert len(blocks()) > 5
    for block in blocks():
        shown = notebook.run(block)
        assert not shown.error, f"{block}\n{shown.error}\n{shown.printed}"


@pytest.mark.slow
def test_a_second_run_keeps_what_did_not_change_and_a_thread_may_start_it(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("import boatyard, threading; boatyard.init('flowers', data='flowers.csv')")
    assert not notebook.run(f"run = boatyard.run('flowers', set={SET})").error
    again = f"t = threading.Thread(target=lambda: boatyard.run('flowers', set={SET})); t.start(); t.join()"
    assert not notebook.run(again).error
    latest, first = runs.all_of(tmp_path / "flowers")
    assert (latest.state, first.state) == ("succeeded", "succeeded")
    assert {step.state for step in latest.steps if step.name in ("preprocess", "train", "evaluate")} == {"cached"}


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_can_be_resumed(notebook: Kernel, tmp_path: Path) -> None:
    notebook.run("import boatyard; boatyard.init('flowers', data='flowers.csv')")
    long = "boatyard.run('flowers', set={'train.epochs': 5000, 'train.learning_rate': 0.02, 'train.patience': None})"
    shown = notebook.run(long, interrupt_when=(tmp_path / "flowers" / "runs", "[0-9]*/logs/train.log"))
    assert shown.error.startswith("Interrupted: run "), shown
    (record,) = runs.all_of(tmp_path / "flowers")
    assert record.state == "interrupted"
    assert notebook.run("1 + 1").text == "2", "the kernel lives"
    state = "boatyard.runs('flowers')[0].state"
    assert notebook.run(state).text == "'interrupted'"


@pytest.mark.slow
def test_two_runs_with_other_settings_at_once_each_have_their_own(notebook: Kernel, tmp_path: Path) -> None:
    code = """
import boatyard
from concurrent.futures import ThreadPoolExecutor
boatyard.init('flowers', data='flowers.csv')
def tried(rate):
    return boatyard.run('flowers', set={'train.epochs': 3, 'train.learning_rate': rate, 'gate.not_worse': False})
with ThreadPoolExecutor() as pool:
    both = list(pool.map(tried, (0.02, 0.03)))
import json
print(json.dumps([[run.state, run.report.metrics['accuracy'].value, str(run.checkpoint)] for run in both]))
"""
    shown = notebook.run(code)
    assert not shown.error, shown
    found = json.loads(shown.printed.strip().splitlines()[-1])
    assert [state for state, _, _ in found] == ["succeeded", "succeeded"]
    assert found[0][2] != found[1][2]
