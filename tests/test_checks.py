"""What is checked of a recipe before it is trained: honest models of many sorts pass, each mistake is said by line."""

# ruff: noqa: E501 - a case a line

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rows
import torch

import boatyard
from boatyard import recipes
from boatyard.errors import RecipeError
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.recipes.authoring import located
from boatyard.training import checks

HEAD = """\
import math
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from boatyard.recipes import Recipe
"""
TABLE, VALUES, IMAGES = rows.numbers(), rows.numbers(task="regression"), rows.images(80)


def check(folder: Path, code: str, dataset: rows.Made = TABLE, *, graph: bool = True, **settings: Any) -> None:
    """Check the recipe `R` of some code on the rows of a dataset."""
    (folder / "net.py").write_text(HEAD + textwrap.dedent(code))
    config = TrainConfig(recipe="net:R", device="cpu", **settings)
    recipe = recipes.make(config, PreprocessConfig(), dataset.schema, dataset.statistics, root=folder)
    checks.check(recipe, next(dataset.batches("train", 64)), graph=graph)


def net(init: str, forward: str) -> str:
    """Return a recipe around a module: i inputs, o outputs."""
    lines = ["class M(nn.Module):", "    def __init__(s, i, o):", "        super().__init__()"]
    lines += [f"        {line}" for line in init.splitlines()]
    lines += ["    def forward(s, x):", *[f"        {line}" for line in forward.splitlines()]]
    return "\n".join(
        [*lines, "class R(Recipe):", "    def model(self): return M(math.prod(self.shape), self.outputs)\n"]
    )


HONEST = {
    "batch norm": net("s.l = nn.Sequential(nn.Linear(i, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, o))", "return s.l(x)"),
    "dropout": net("s.l = nn.Linear(i, o)", "return s.l(F.dropout(x, .5, s.training))"),
    "layer norm, dead units": net("s.a = nn.Linear(i, 8); s.n = nn.LayerNorm(8); s.b = nn.Linear(8, o)\nnn.init.constant_(s.a.bias, -99)", "return s.b(s.n(F.relu(s.a(x))))"),
    "group norm": net("s.a = nn.Linear(i, 8); s.n = nn.GroupNorm(2, 8); s.b = nn.Linear(8, o)", "return s.b(s.n(s.a(x)))"),
    "lstm over features": net("s.a = nn.LSTM(1, 6, batch_first=True); s.b = nn.Linear(6, o)", "return s.b(s.a(x.unsqueeze(2))[0][:, -1])"),
    "gru over features": net("s.a = nn.GRU(1, 6, batch_first=True, bidirectional=True); s.b = nn.Linear(12, o)", "return s.b(s.a(x.unsqueeze(-1))[0].mean(1))"),
    "transformer over features": net("s.e = nn.Linear(1, 8); s.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2); s.b = nn.Linear(8, o)", "return s.b(s.t(s.e(x.unsqueeze(-1))).mean(1))"),
    "attention over features": net("s.e = nn.Linear(1, 8); s.t = nn.MultiheadAttention(8, 2, batch_first=True); s.b = nn.Linear(8, o)", "x = s.e(x.unsqueeze(-1))\nreturn s.b(s.t(x, x, x)[0].mean(1))"),
    "softmax over features": net("s.a = nn.Linear(i, i); s.b = nn.Linear(i, o)", "return s.b(x * s.a(x).softmax(1))"),
    "class token": net("s.c = nn.Parameter(torch.zeros(1, 1, 8)); s.e = nn.Linear(1, 8); s.t = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True); s.b = nn.Linear(8, o)", "x = s.e(x.unsqueeze(-1))\nreturn s.b(s.t(torch.cat([s.c.expand(x.shape[0], -1, -1), x], 1))[:, 0])"),
    "embeddings": net("s.e = nn.Embedding(50, 4); s.b = nn.Linear(4 * i, o)", "return s.b(s.e((x * 3).long().clamp(0, 49)).reshape(x.shape[0], -1))"),
    "padding index": net("s.e = nn.Embedding(50, 4, padding_idx=0); s.b = nn.Linear(4, o)", "return s.b(s.e((x * 3).long().clamp(0, 49)).mean(1))"),
    "residual": net("s.a = nn.Linear(i, i); s.b = nn.Linear(i, o)", "return s.b(x + F.gelu(s.a(x)))"),
    "tied weights": net("s.a = nn.Linear(i, i); s.c = nn.Linear(i, i); s.c.weight = s.a.weight; s.b = nn.Linear(i, o)", "return s.b(s.c(F.relu(s.a(x))))"),
    "gate that begins at 0": net("s.a = nn.Linear(i, o); s.b = nn.Linear(i, o); s.g = nn.Parameter(torch.zeros(()))", "return s.a(x) + s.g * s.b(x)"),
    "mixture of experts": net("s.g = nn.Linear(i, 3); s.e = nn.ModuleList(nn.Linear(i, o) for _ in range(3))", "return (torch.stack([e(x) for e in s.e], 1) * s.g(x).softmax(1).unsqueeze(-1)).sum(1)"),
    "last layer begins at 0": net("s.a = nn.Linear(i, 8); s.b = nn.Linear(8, o)\nnn.init.zeros_(s.b.weight); nn.init.zeros_(s.b.bias)", "return s.b(F.relu(s.a(x)))"),
    "spectral norm": net("s.a = nn.utils.parametrizations.spectral_norm(nn.Linear(i, 8)); s.b = nn.Linear(8, o)", "return s.b(F.relu(s.a(x)))"),
    "spectral norm as a hook": net("s.a = nn.utils.spectral_norm(nn.Linear(i, 8)); s.b = nn.Linear(8, o)", "return s.b(F.relu(s.a(x)))"),
    "weight norm": net("s.a = nn.utils.parametrizations.weight_norm(nn.Linear(i, 8)); s.b = nn.Linear(8, o)", "return s.b(F.relu(s.a(x)))"),
    "frozen body": net("s.a = nn.Linear(i, 8).requires_grad_(False); s.b = nn.Linear(8, o)", "return s.b(F.relu(s.a(x)))"),
    "frozen body, low-rank adapter": net("s.w = nn.Linear(i, o).requires_grad_(False); s.a = nn.Linear(i, 2, bias=False); s.b = nn.Linear(2, o, bias=False)\nnn.init.zeros_(s.b.weight)", "return s.w(x) + s.b(s.a(x))"),
    "temperature read as a number": net("s.l = nn.Linear(i, o); s.register_buffer('t', torch.tensor(2.))", "return s.l(x) / (s.t.item() if s.t > 1 else 1)"),
    "sizes asserted": net("s.l = nn.Linear(i, o); s.i = i", "b, n = x.shape\nassert n == s.i and n > 0\nfor _ in range(n - 1): x = x * 1.0\nreturn s.l(x.view(b, n))"),
    "layer left out at random": net("s.a = nn.ModuleList(nn.Linear(i, i) for _ in range(2)); s.b = nn.Linear(i, o)", "if s.training:\n    return s.b(s.a[int(torch.rand(()) > .5)](x))\nreturn s.b((s.a[0](x) + s.a[1](x)) / 2)"),
    "lazy layers": net("s.a = nn.LazyLinear(8); s.b = nn.LazyLinear(o)", "return s.b(F.relu(s.a(x)))"),
    "clamp, where, top values of a row": net("s.a = nn.Linear(i + 2, o)", "return s.a(torch.cat([torch.where(x > 1, x, x.clamp(-3, 3)), x.topk(2, 1).values], 1))"),
    "large scores": net("s.a = nn.Linear(i, 64); s.b = nn.Linear(64, o)", "return 100 * s.b(torch.sin(9 * s.a(x)))"),
    "squeezed by its dimension": net("s.a = nn.Conv1d(1, o, i)", "return s.a(x.unsqueeze(1)).squeeze(2)"),
}  # fmt: skip
HONEST_IMAGES = {
    "convolutions and batch norm": net("s.l = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, o))", "return s.l(x)"),
    "instance norm": net("s.l = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, o))", "return s.l(x)"),
    "patches": net("s.p = nn.Conv2d(1, 8, 4, 4); s.t = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True); s.b = nn.Linear(8, o)", "return s.b(s.t(s.p(x).flatten(2).transpose(1, 2)).mean(1))"),
    "squeeze and excitation": net("s.c = nn.Conv2d(1, 4, 3); s.g = nn.Linear(4, 4); s.b = nn.Linear(4, o)", "x = s.c(x)\nreturn s.b((x * s.g(x.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3)))"),
}  # fmt: skip
LINEAR = "class R(Recipe):\n    def model(self): return nn.Linear(math.prod(self.shape), self.outputs)\n"
LOSS = (
    LINEAR
    + "    def loss(self): return L(self)\nclass L(nn.Module):\n    def __init__(s, r):\n        super().__init__()\n        s.r = [r]\n    def forward(s, o, t): return "
)
HONEST_LOSSES = {
    "class weights": LINEAR + "    def loss(self): return nn.CrossEntropyLoss(weight=torch.tensor([1., 2., 5.]))\n",
    "focal": LOSS + "((1 - torch.exp(-F.cross_entropy(o, t, reduction='none'))) ** 2 * F.cross_entropy(o, t, reduction='none')).mean()\n",
    "one against the rest": LOSS + "F.binary_cross_entropy_with_logits(o, F.one_hot(t, o.shape[1]).float(), pos_weight=torch.tensor([1., 2., 3.]))\n",
    "margin": LINEAR + "    def loss(self): return nn.MultiMarginLoss()\n",
    "ordinal distance": LOSS + "((o.softmax(1) * torch.arange(3.)).sum(1) - t).square().mean()\n",
}  # fmt: skip
HONEST_VALUE_LOSSES = {
    "quantile": LOSS + "torch.maximum(.9 * (t - o[:, 0]), -.1 * (t - o[:, 0])).mean()\n",
    "same shapes": LOSS + "F.smooth_l1_loss(o, t.unsqueeze(1))\n",
    "log cosh": LOSS + "torch.log(torch.cosh(o.squeeze(1) - t)).mean()\n",
    "pairwise differences": LOSS + "((o[:, 0].unsqueeze(1) - o[:, 0].unsqueeze(0)) - (t.unsqueeze(1) - t.unsqueeze(0))).square().mean() + F.mse_loss(o[:, 0], t)\n",
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take longer than these few rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")  # what torch says of its own layers
@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_passes(tmp_path: Path, name: str) -> None:
    check(tmp_path, HONEST[name])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", HONEST_IMAGES)
def test_an_honest_model_of_images_passes(tmp_path: Path, name: str) -> None:
    check(tmp_path, HONEST_IMAGES[name], IMAGES)


@pytest.mark.parametrize("name", HONEST_LOSSES)
def test_an_honest_loss_of_labels_passes(tmp_path: Path, name: str) -> None:
    check(tmp_path, HONEST_LOSSES[name], graph=False)


@pytest.mark.parametrize("name", HONEST_VALUE_LOSSES)
def test_an_honest_loss_of_values_passes(tmp_path: Path, name: str) -> None:
    check(tmp_path, HONEST_VALUE_LOSSES[name], VALUES, graph=False)


def test_a_regression_may_give_one_dimension(tmp_path: Path) -> None:
    check(tmp_path, net("s.l = nn.Linear(i, o)", "return s.l(x).squeeze(1)"), VALUES)


MIXING = {
    "mean of the batch": ("s.l = nn.Linear(i, o)", "return s.l(x - x.mean(0))"),
    "behind a gate of 0": ("s.l = nn.Linear(i, o); s.g = nn.Parameter(torch.zeros(()))", "return s.l(x) + s.g * s.l(x).mean(0)"),
    "small share": ("s.l = nn.Linear(i, o)", "return s.l(x) + .01 * s.l(x).mean(0)"),
    "tiny scores": ("s.l = nn.Linear(i, o)", "return 1e-6 * s.l(x - x.mean(0))"),
    "rank": ("s.l = nn.Linear(i, o)", "return s.l(x.argsort(0).float())"),
    "maximum": ("s.l = nn.Linear(i, o)", "return s.l(x / x.abs().amax())"),
    "attention over rows": ("s.q = nn.Linear(i, 4); s.l = nn.Linear(i, o)", "q = s.q(x)\nreturn s.l((q @ q.T).softmax(1) @ x)"),
    "attention without batch_first": ("s.e = nn.Linear(1, 8); s.t = nn.MultiheadAttention(8, 2); s.l = nn.Linear(8, o)", "x = s.e(x.unsqueeze(-1))\nreturn s.l(s.t(x, x, x)[0].mean(1))"),
    "softmax over rows": ("s.l = nn.Linear(i, o)", "return s.l(x).softmax(0)"),
    "neighbour": ("s.l = nn.Linear(i, o)", "return s.l(x) + s.l(x).roll(1, 0)"),
    "cumulative sum": ("s.l = nn.Linear(i, o)", "return s.l(x).cumsum(0)"),
    "batch norm in training mode": ("s.n = nn.BatchNorm1d(i); s.l = nn.Linear(i, o)", "return s.l(F.batch_norm(x, None, None, training=True))+ 0 * s.n(x).sum()"),
    "squeeze": ("s.l = nn.Linear(i, o)", "return s.l(x).squeeze()"),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXING)
def test_a_model_whose_rows_see_each_other_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        RecipeError, match=r"net\.py, line \d+: .*(rows around it|for 1 row|for a row alone|one row to normalise by)"
    ):
        check(tmp_path, net(*MIXING[name]), graph=False)


STATEFUL = {
    "dropout in eval mode": ("s.l = nn.Linear(i, o)", "return s.l(F.dropout(x))", "training=self.training"),
    "counts its calls": ("s.l = nn.Linear(i, o); s.n = 0", "s.n += 1\nreturn s.l(x) * s.n", r"the second time, .*changed while it answered: model\.n"),
    "remembers": ("s.l = nn.Linear(i, o); s.m = None", "m, s.m = s.m, x.mean()\nreturn s.l(x if m is None else x - m)", "the second time|around it"),
    "eval does not reach a layer": ("s.l = nn.Sequential(nn.Linear(i, o), nn.Dropout(.5)); s.train = lambda mode=True: s", "return s.l(x)", "stays in training mode"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATEFUL)
def test_a_model_that_answers_otherwise_the_next_time_is_refused(tmp_path: Path, name: str) -> None:
    init, forward, message = STATEFUL[name]
    with pytest.raises(RecipeError, match=rf"net\.py, line \d+: .*{message}"):
        check(tmp_path, net(init, forward), graph=False)


BRANCHES = {
    "a value that is rare": ("if (x > 99).any(): x = x - 99\nreturn s.l(x)", "an if on values"),
    "one row": ("if len(x) == 1: return -s.l(x)\nreturn s.l(x)", r"len\(\) is the number of rows"),
    "many rows": ("if x.shape[0] > 500: return -s.l(x)\nreturn s.l(x)", "an if on the number of rows"),
    "size()": ("if x.size(0) % 512 == 511: return -s.l(x)\nreturn s.l(x)", "an if on the number of rows"),
    "item": ("return s.l(x) + max(x.max().item() - 99, 0)", r"item\(\)"),
    "int": ("return s.l(x) + (int(x.sum()) > 1e9)", r"int\(\)"),
    "numpy": ("return s.l(x) + torch.from_numpy(x.detach().numpy().clip(99, 99)).sum(1, keepdim=True) * 0", r"numpy\(\)"),
    "asarray": ("return s.l(x) + float(np.asarray(x).max() > 99)", "numpy"),
    "tolist": ("return s.l(x) + sum(v > 1e9 for v in x.flatten().tolist())", r"tolist\(\)"),
    "a loop over rows": ("return torch.stack([s.l(row) for row in x])", "a loop over rows"),
    "assertion": ("assert torch.isfinite(x).all()\nreturn s.l(x)", "an if on values"),
    "allclose": ("if torch.allclose(x, x * 99): return -s.l(x)\nreturn s.l(x)", "an if on values"),
}  # fmt: skip


@pytest.mark.parametrize("name", BRANCHES)
def test_python_that_depends_on_rows_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    forward, message = BRANCHES[name]
    with pytest.raises(RecipeError, match=rf"net\.py, line 12: .*({message})"):
        check(tmp_path, net("s.l = nn.Linear(i, o)", forward), graph=False)


def test_a_loop_over_the_number_of_rows_is_found_by_the_trial_export(tmp_path: Path) -> None:
    code = net("s.l = nn.Linear(i, o)", "return torch.cat([s.l(x[k : k + 1]) for k in range(x.shape[0])])")
    with pytest.raises(RecipeError, match=r"net\.py, line 11: the exported ONNX model .*loops over its rows"):
        check(tmp_path, code)


MISTAKES: dict[str, tuple[str, str]] = {
    "frozen": (LINEAR.replace("self.outputs)", "self.outputs).requires_grad_(False)"), "line 8: all weights of the model are frozen"),
    "no weights": (net("s.o = o", "return x[:, : s.o]"), "line 14: the model has no weights to learn"),
    "unused layer": (net("s.l = nn.Linear(i, o); s.spare = nn.Linear(i, o)", "return s.l(x)"), "line 11: the loss does not depend on spare.weight, spare.bias"),
    "detached": (net("s.a = nn.Linear(i, 8); s.b = nn.Linear(8, o)", "return s.b(s.a(x).detach())"), "does not depend on a.weight, a.bias"),
    "no_grad": (net("s.a = nn.Linear(i, o)", "with torch.no_grad(): return s.a(x)"), "the scores depend on no weight"),
    "layers in a list": (net("s.a = [nn.Linear(i, 8)]; s.b = nn.Linear(8, o)", "return s.b(s.a[0](x))"), r"weights that are in no optimizer: model\.a\[0\]\.bias, model\.a\[0\]\.weight"),
    "layers in a dict": (net("s.a = {'k': nn.Linear(i, 8)}; s.b = nn.Linear(8, o)", "return s.b(s.a['k'](x))"), r"in no optimizer: model\.a\['k'\]\.bias"),
    "a bare tensor": (net("s.w = torch.zeros(o, requires_grad=True); s.b = nn.Linear(i, o)", "return s.b(x) + s.w"), r"in no optimizer: model\.w"),
    "computed once": (net("s.p = nn.Parameter(torch.ones(i)); s.w = s.p.exp(); s.b = nn.Linear(i, o)", "return s.b(x * s.w)"), r"compute in forward\(\) what depends on weights"),
    "a loss that learns": (LINEAR + "    def loss(self): return L()\nclass L(nn.Module):\n    def __init__(s):\n        super().__init__(); s.t = nn.Parameter(torch.ones(()))\n    def forward(s, o, t): return F.cross_entropy(o * s.t, t)\n", r"line 9: loss\(\) has weights that are in no optimizer: t"),
    "features that learn": (LINEAR + "    def features(self): return G(super().features())\nclass G(nn.Module):\n    def __init__(s, f):\n        super().__init__(); s.f = f; s.t = nn.Parameter(torch.ones(()))\n    def forward(s, x): return s.f(x) * s.t\n", r"line 9: features\(\) has weights that are in no optimizer: t"),
    "metrics that learn": (LINEAR + "    w = nn.Parameter(torch.ones(()))\n    def metrics(self, o, t): return {'a': float((o * self.w).mean())}\n", r"line 10: metrics\(\) uses weights that are in no optimizer"),
    "a loss of each row": (LINEAR + "    def loss(self): return nn.CrossEntropyLoss(reduction='none')\n", r"line 9: the loss of 64 rows: expected one real number: a tensor of no dimension, found float32 \[64\]"),
    "a loss without a gradient": (LOSS + "(o.argmax(1) != t).float().mean()\n", "line 14: the loss has no gradient"),
    "a loss that is a float": (LOSS + "F.cross_entropy(o, t).item()\n", "found a float"),
    "a loss that ignores the targets": (LOSS + "o.square().mean()\n", "line 14: the loss does not depend on the targets"),
    "a loss of means": (LOSS + "(o.softmax(1).mean(0) - F.one_hot(t, 3).float().mean(0)).square().sum()\n", "the same whichever row a target is of"),
    "a loss that is a function": (LINEAR + "    def loss(self): return F.cross_entropy\n", r"line 9: loss\(\): expected a torch\.nn\.Module, found a function; wrap"),
    "too few class weights": (LINEAR + "    def loss(self): return nn.CrossEntropyLoss(weight=torch.ones(2))\n", "line 9: the loss raises RuntimeError: .*one class weight for each label"),
    "too many class weights": (LOSS + "(s.weight[t] * F.cross_entropy(o, t, reduction='none')).mean()\n    weight = torch.ones(4)\n", "weight of the loss: expected 3 numbers, one for each label, found 4"),
    "a class weight that is met late": (LOSS + "(s.w[t] * F.cross_entropy(o, t, reduction='none')).mean()\n    w = torch.ones(2)\n", "line 14: the loss raises IndexError"),
    "complex weights": (net("s.w = nn.Parameter(torch.randn(i, o, dtype=torch.complex64))", "return (x.cfloat() @ s.w).abs()"), "w is complex64"),
    "complex outputs": (net("s.w = nn.Linear(i, o)", "return torch.fft.fft(s.w(x))"), r"line 11: the model gives complex64 \[2, 3\]"),
    "double outputs": (net("s.w = nn.Linear(i, o)", "return s.w(x).double()"), r"the model gives float64 \[2, 3\]"),
    "half outputs": (net("s.w = nn.Linear(i, o)", "return s.w(x).half()"), r"the model gives float16 \[2, 3\]"),
    "two outputs": (net("s.w = nn.Linear(i, o)", "return s.w(x), x"), "the model gives a tuple of 2: expected a float32 tensor"),
    "a dict": (net("s.w = nn.Linear(i, o)", "return {'logits': s.w(x)}"), "the model gives a dict of logits"),
    "no return": (net("s.w = nn.Linear(i, o)", "s.w(x)"), "the model gives nothing"),
    "wrong width": (net("s.w = nn.Linear(i, 7)", "return s.w(x)"), r"the model gives \[2, 7\] for 2 rows: expected a float32 tensor \[2, 3\]"),
    "other arguments": ("class M(nn.Linear):\n    def forward(s, x, mask): return super().forward(x)\nclass R(Recipe):\n    def model(self): return M(4, 3)\n", r"line 10: forward\(\) raises TypeError: .*missing 1 required positional argument"),
    "model() gives nothing": ("class R(Recipe):\n    def model(self): nn.Linear(4, 3)\n", r"line 8: model\(\): expected a torch\.nn\.Module, found nothing: is there a return\?"),
    "model() gives a class": ("class R(Recipe):\n    def model(self): return nn.Linear\n", r"line 8: model\(\): expected a torch\.nn\.Module, found a type"),
    "model() raises": ("class R(Recipe):\n    def model(self):\n        return 1 / 0\n", r"line 9: model\(\) raises ZeroDivisionError"),
    "no model()": ("class R(Recipe): pass\n", r"line 7: model\(\) raises NotImplementedError: R has no model\(self\)"),
    "__init__ raises": (LINEAR + "    def __init__(self, *a): self.x\n", r"line 9: R\(\) raises AttributeError"),
    "layers of other widths": ("class R(Recipe):\n    def model(self): return nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 3))\n", r"line 8: forward\(\) raises RuntimeError: mat1 and mat2"),
    "a metric that is NaN": (LINEAR + "    def metrics(self, o, t): return {'a': float('nan')}\n", r"line 9: metrics\(\): a is nan: expected a finite number"),
    "a metric of each row": (LINEAR + "    def metrics(self, o, t): return {'a': o}\n", r"line 9: metrics\(\): .*'a': expected a float, found Tensor"),
    "metrics that are a number": (LINEAR + "    def metrics(self, o, t): return 1.0\n", "expected a dict of names and numbers, found float"),
    "metrics that raise": (LINEAR + "    def metrics(self, o, t): return {'a': 1 / 0}\n", r"line 9: metrics\(\) raises ZeroDivisionError"),
    "batch norm without statistics": (net("s.n = nn.BatchNorm1d(i, track_running_stats=False); s.l = nn.Linear(i, o)", "return s.l(s.n(x))"), "n is a BatchNorm1d without running statistics"),
    "in-place on what the gradient needs": (net("s.l = nn.Linear(i, o)", "y = s.l(x).exp()\ny += 1\nreturn y"), "raises RuntimeError: .*inplace operation"),
    "an operation that ONNX lacks": (net("s.l = nn.Linear(i, o)", "return s.l(x) + torch.linalg.svdvals(x.unsqueeze(2)) * 0"), "line 11: the model cannot be exported to ONNX"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_recipe_is_said_with_its_line(tmp_path: Path, name: str) -> None:
    code, message = MISTAKES[name]
    with pytest.raises(RecipeError, match=rf"net\.py, {message}" if message.startswith("line") else message) as caught:
        check(tmp_path, code)
    assert "net.py, line " in str(caught.value)


BROADCAST = {
    "an operator": "((o - t) ** 2).mean()",
    "a function of torch": "F.mse_loss(o, t)",
    "a share of it": "F.l1_loss(o[:, 0], t) + (o - t).abs().mean()",
    "the median": "(o - t).abs().median()",
}


@pytest.mark.parametrize("name", BROADCAST)
def test_outputs_of_two_dimensions_against_targets_of_one_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"net\.py, line 14: .*every output against every target; write outputs\.sq"):
        check(tmp_path, LOSS + BROADCAST[name] + "\n", VALUES)


def test_batch_norm_and_batches_of_one_row_are_refused(tmp_path: Path) -> None:
    code = net("s.n = nn.BatchNorm1d(i); s.l = nn.Linear(i, o)", "return s.l(s.n(x))")
    with pytest.raises(RecipeError, match=r"net\.py, line 12: .*give a greater train\.batch_size"):
        check(tmp_path, code, batch_size=1)


def test_only_what_comes_from_a_line_of_the_author_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(HEAD + "class R(Recipe):\n    def width(self): return {}['width']\n")
    kind = recipes.load("net:R", tmp_path)
    with (
        pytest.raises(RecipeError, match=r"net\.py, line 8: training raises KeyError: 'width'"),
        located(kind, "training"),
    ):
        kind.width(None)  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError), located(kind, "training"):
        _ = 1 / 0
    with pytest.raises(OSError, match="disk"), located(kind, "training"):
        raise OSError("disk")


def test_the_error_itself_stays_as_the_cause(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, "class R(Recipe):\n    def model(self): return {}['width']\n")
    assert isinstance(caught.value.__cause__, KeyError)


def test_checking_draws_from_no_generator_that_training_draws_from(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    check(tmp_path, HONEST["layer left out at random"], graph=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project on a table of 200 rows, whose recipe is `net:R`."""
    lines = [f"{k % 7},{k % 5},{'yes' if k % 7 > 3 else 'no'}" for k in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,label", *lines]))
    (tmp_path / "boatyard.yaml").write_text(
        "name: p\ntask: classification\ndata: {source: csv, path: rows.csv, target: label}\ntrain: {recipe: 'net:R'}\n"
    )
    return tmp_path


def test_check_tries_the_recipe_on_the_first_rows(project: Path) -> None:
    (project / "net.py").write_text(HEAD + net(*MIXING["mean of the batch"]))
    with pytest.raises(RecipeError, match=r"net\.py, line 11: a row's scores depend on the rows around it"):
        boatyard.check(project)
    (project / "net.py").write_text(HEAD + HONEST["batch norm"])
    assert boatyard.check(project).derived["recipe"] == "net:R"
