"""Recipes: what a user brings, found by name, checked setting by setting, and held to rules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rows
import torch
from torch import nn

from boatyard import recipes
from boatyard.errors import ConfigError, DataError, Refused
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.recipes import Recipe, conformance
from boatyard.recipes.cnn import Cnn
from boatyard.recipes.linear import Linear
from boatyard.recipes.mlp import Mlp

DOCS = Path(__file__).parent.parent / "docs" / "own-model.md"
NET = """
from torch import nn
from boatyard.recipes import Recipe

class Net(Recipe):
    def model(self):
        return nn.Sequential(nn.Flatten(), nn.Linear({inputs}, self.outputs))
"""


def make(
    recipe: str, model: dict[str, Any] | None = None, dataset: rows.Made | None = None, root: Path = Path()
) -> Recipe:
    dataset = dataset or rows.images()
    config = TrainConfig(recipe=recipe, model=model or {})
    return recipes.make(config, PreprocessConfig(), dataset.schema, dataset.statistics, root=root)


BUILT_IN = [
    (Linear, {}, True, "classification"),
    (Linear, {}, False, "regression"),
    (Mlp, {"hidden": [16], "dropout": 0.1}, False, "classification"),
    (Cnn, {"blocks": [4, 8], "dense": [16], "batch_norm": True}, True, "classification"),
]


@pytest.mark.parametrize("rule", conformance.RULES, ids=conformance.name)
@pytest.mark.parametrize(("recipe", "dials", "images", "task"), BUILT_IN)
def test_built_in_recipes_keep_the_rules(rule: Any, recipe: Any, dials: Any, images: bool, task: Any) -> None:
    rule(conformance.Subject(recipe, images, task, dials))


def test_names_are_the_installed_entry_points() -> None:
    assert {"linear", "mlp", "cnn"} <= set(recipes.names())


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'cn'; did you mean cnn\? installed are cnn, linear, mlp"):
        recipes.load("cn", tmp_path)


def test_naming_a_recipe_does_not_import_torch() -> None:
    code = "import sys, boatyard.recipes as r, boatyard.training; r.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"hiden": [8]},
            r"train\.model\.hiden: no such setting; did you mean hidden\? Mlp has hidden, dropout, activation",
        ),
        ({"hidden": [0]}, r"train\.model\.hidden\.0: .*greater than or equal to 1, found 0"),
        ({"dropout": 1}, r"train\.model\.dropout: .*less than 1, found 1"),
        ({"activation": "sin"}, r"train\.model\.activation: .*'relu', 'gelu', 'tanh' or 'silu', found 'sin'"),
    ],
)
def test_a_wrong_dial_is_refused_with_its_path(model: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("mlp", model)


def test_a_recipe_without_dials_says_so() -> None:
    with pytest.raises(ConfigError, match=r"train\.model\.width: no such setting; Linear has none"):
        make("linear", {"width": 3})


def test_cnn_refuses_a_table() -> None:
    with pytest.raises(ConfigError, match="cnn needs images, found a table of 4 features; use mlp or linear"):
        make("cnn", dataset=rows.numbers()).model()


def test_cnn_refuses_an_image_too_small_for_its_blocks() -> None:
    with pytest.raises(ConfigError, match=r"needs 16 pixels a side or more, found 12×12; give at most 3 blocks"):
        make("cnn", {"blocks": [4, 4, 4, 4]}).model()


def test_cnn_refuses_an_even_kernel() -> None:
    with pytest.raises(ConfigError, match=r"train.model.kernel is 4; give an odd one"):
        make("cnn", {"kernel": 4}).model()


def test_pooling_before_the_activation_gives_what_pooling_after_it_gives() -> None:
    model = make("cnn", {"blocks": [4], "dense": []}).model()
    convolution, pool, relu = model[0], model[1], model[2]
    image = torch.randn(2, 1, 12, 12)
    swapped, usual = relu(pool(convolution(image))), pool(relu(convolution(image)))
    assert torch.equal(swapped, usual)


def test_one_label_is_nothing_to_learn() -> None:
    dataset = rows.images()
    one = type(dataset.schema)("classification", dataset.schema.fields, "label", ("only",))
    with pytest.raises(DataError, match=r"expected two labels or more to tell apart, found \['only'\]"):
        Linear(TrainConfig(), PreprocessConfig(), one, dataset.statistics)


def test_an_own_recipe_is_imported_from_the_projects_folder(tmp_path: Path) -> None:
    (tmp_path / "net_a.py").write_text(NET.format(inputs=144))
    before = list(sys.path)
    model = make("net_a:Net", root=tmp_path).model()
    assert model[1].weight.shape == (3, 144)
    assert sys.path == before


def test_an_edited_recipe_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "net_b.py"
    for inputs in (144, 7):
        file.write_text(NET.format(inputs=inputs) + "#" * inputs)
        assert make("net_b:Net", root=tmp_path).model()[1].in_features == inputs


def test_two_projects_may_have_modules_of_one_name(tmp_path: Path) -> None:
    for project, inputs in (("one", 5), ("two", 6)):
        (tmp_path / project).mkdir()
        (tmp_path / project / "net_c.py").write_text(NET.format(inputs=inputs))
    for project, inputs in (("one", 5), ("two", 6), ("one", 5)):
        assert make("net_c:Net", root=tmp_path / project).model()[1].in_features == inputs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net_d:Nett", r"no class Nett in .*net_d\.py; it has Net, Other"),
        ("net_e:Net", r"net_e:Net wants the file .*net_e\.py, which is not there"),
        ("net_d:", r"expected module:Class such as model:Net, found 'net_d:'"),
        ("../net_d:Net", r"expected module:Class"),
        ("net_d:Other", r"net_d:Other is not a subclass of boatyard\.recipes\.Recipe"),
        ("net_f:Net", r"net_f\.py does not import: No module named 'nowhere'"),
        ("net_g:Net", r"net_g\.py does not import: .*line 1"),
    ],
)
def test_an_own_recipe_that_cannot_be_found_is_said(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "net_d.py").write_text(NET.format(inputs=1) + "class Other: pass\n")
    (tmp_path / "net_f.py").write_text("import nowhere\n")
    (tmp_path / "net_g.py").write_text("class (\n")
    with pytest.raises(ConfigError, match=message):
        recipes.load(name, tmp_path)


class Leaky(Recipe):
    """Subtracts the batch's mean: a row's answer depends on its neighbours."""

    def model(self) -> nn.Module:
        inner = Linear.model(self)  # type: ignore[arg-type]

        class Centred(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.inner(x - x.mean(dim=0, keepdim=True))

        return Centred()


class Idle(Recipe):
    """Has a layer that the answer does not depend on."""

    def model(self) -> nn.Module:
        model = Linear.model(self)  # type: ignore[arg-type]
        model.register_parameter("spare", nn.Parameter(torch.zeros(3)))
        return model


class Narrow(Recipe):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            Leaky,
            "Leaky breaks [12] of 12 rules\nanswers a row the same in any batch: .* on the rows around it",
        ),
        (Idle, r"every weight learns: .*test_recipes\.py, line \d+: the loss does not depend on spare"),
        (Narrow, r"Narrow cannot be tried: .*the model gives \[2, 2\] for 2 rows: expected a float32 tensor \[2, 3\]"),
        (Recipe, r"Recipe cannot be tried: NotImplementedError: Recipe has no model\(self\)"),
    ],
)
def test_conformance_names_the_rule_that_is_broken(recipe: Any, message: str) -> None:
    with pytest.raises(Refused, match=message):
        conformance.check(recipe, images=False)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_guide_to_own_models_runs_as_printed() -> None:
    names: dict[str, Any] = {"__name__": "model"}
    for block in blocks("python"):
        exec(compile(block, str(DOCS), "exec", dont_inherit=True), names)
    for rule in conformance.RULES:
        names["test_bottleneck"](rule)


def test_the_guides_project_section_fits_its_model(tmp_path: Path) -> None:
    import yaml

    (tmp_path / "model.py").write_text(blocks("python")[0])
    config = yaml.safe_load(blocks("yaml")[0])["train"]
    assert make(config["recipe"], config["model"], root=tmp_path).dials.neck == 12
