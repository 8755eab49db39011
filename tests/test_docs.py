"""The pages: links resolve, commands exist, the reference is the types'."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from boatyard.__main__ import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    ROOT / "examples" / "cluster" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def commands(page: Path) -> list[list[str]]:
    """Return every `boatyard …` command of a page's code blocks, as words."""
    text = re.sub(r"\s*\\\n\s*", " ", page.read_text())
    lines = re.findall(r"^(?:    |\t|\$ )?\s*(?:\$ )?(?:\.venv/bin/)?boatyard ([^\n]+)$", text, flags=re.M)
    parts = [re.split(r"\s+#|\s*&&|\s*\||\s*>|\s*;", line)[0] for line in lines]
    return [shlex.split(part) for part in parts if not part.startswith(":")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_is_one_that_there_is(page: Path) -> None:
    for words in commands(page):
        command: click.Command = cli
        while isinstance(command, click.Group) and words:
            found = command.get_command(click.Context(command), words[0])
            assert found is not None, f"{page.name}: boatyard {' '.join(words)}"
            command, words = found, words[1:]
        options = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
        used = {word.split("=")[0] for word in words if word.startswith("-")}
        assert used <= options, f"{page.name}: boatyard {command.name} {used - options}"


def test_the_reference_is_that_of_the_types() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    assert (ROOT / "docs" / "project-file.md").read_text() == made["page"](), "run: make schema"
    assert (ROOT / "docs" / "environment.md").read_text() == made["environment"](), "run: make schema"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_names_a_machine(page: Path) -> None:
    assert not re.search(r"/work/|/root/|/home/|\.\./shared", page.read_text())


def test_the_pipelines_picture_is_that_of_the_spec(tmp_path: Path) -> None:
    import yaml

    from boatyard import project
    from boatyard.pipelines import training
    from boatyard.project import templates

    training.compile(project.check(templates.sample(), "sample"), tmp_path / "pipeline.yaml")
    draw = runpy.run_path(str(ROOT / "docs" / "pictures.py"))["pipeline"]
    spec = next(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text()))
    assert (ROOT / "docs" / "pictures" / "pipeline.svg").read_text() == draw(spec)


def test_every_path_that_the_architecture_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([a-z_]+(?:/[a-zA-Z_*.]+)+)`", page)) | set(re.findall(r"`([a-z_]+\.py)`", page))
    for path in named - {"boatyard/*"}:  # the annotations
        below = [path, f"boatyard/{path}"]
        assert any(list(ROOT.glob(place.replace("NAME.py", "*.py").rstrip("/"))) for place in below), path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sources of the site, a configuration for them, and the site in `built`."""
    folder = tmp_path_factory.mktemp("site")
    runpy.run_path(str(ROOT / "docs" / "site.py"))["main"](folder / "source")
    (folder / "mkdocs.yml").write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: source\nsite_dir: built\n")
    assert build(folder) == ""
    return folder


def build(folder: Path) -> str:
    """Build a site strictly; return what it ended with, nothing where nothing was wrong."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", folder / "mkdocs.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.stdout + done.stderr if done.returncode else ""


def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {page.stem for page in (site / "built").glob("*.html")} - {"404"}
    assert pages == {page.stem for page in PAGES if page.parent.name == "docs"} | {
        "index",
        "examples",
        "example-on-a-cluster",
        "contributing",
        "python-api",
    }
    loads = r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//[^"' >]+"""
    assert [re.findall(loads, page.read_text()) for page in (site / "built").glob("*.html")] == [[]] * (len(pages) + 1)


def test_the_api_page_has_every_public_name_and_what_its_docstring_says(site: Path) -> None:
    import boatyard

    text = (site / "source" / "python-api.md").read_text()
    for name in boatyard.__all__:
        first = (getattr(boatyard, name).__doc__ or "").strip().splitlines()[0]
        assert f"\n### {name}\n" in text and first in text
    assert " at 0x" not in text


def test_a_broken_link_is_not_built(site: Path) -> None:
    page = site / "source" / "why.md"
    text = page.read_text()
    page.write_text(f"{text}\n[no page](nowhere.md) and [no heading](tutorial.md#nowhere)\n")
    ended = build(site)
    page.write_text(text)
    assert "'nowhere.md', but the target is not found" in ended and "'tutorial.md#nowhere'" in ended
    with pytest.raises(SystemExit, match=r"docs/why\.md links to .*, which is not in the site"):
        runpy.run_path(str(ROOT / "docs" / "site.py"))["page"](ROOT / "docs" / "why.md", {})
