"""The training loop. All that is random is drawn from (seed, epoch, step), so a run that was cut goes on exactly."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import os
import platform
import random
import sys
import time
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from boatyard import __version__, provenance, recipes
from boatyard.data import artifacts, checkpoints, lineage
from boatyard.data.datasets import Dataset
from boatyard.errors import ConfigError, Interrupted
from boatyard.project import PreprocessConfig, TrainConfig
from boatyard.provenance.code import reach
from boatyard.provenance.modules import Modules
from boatyard.recipes.authoring import located
from boatyard.running.progress import Progress
from boatyard.settings import Settings
from boatyard.spelling import listed
from boatyard.training import (
    checks,
    external_data,
    logged_metrics,
    losses,
    optimisers,
    process_states,
    state_key,
    states,
    tensorboard,
)
from boatyard.training.augmentation import Augmentation
from boatyard.training.distributed import World, joined
from boatyard.training.export import compare_all
from boatyard.training.live_state import Captured, LiveState, changed, unsaved
from boatyard.training.loader import BatchSource, InMemory, Rows, open_split, seed_of, steps
from boatyard.training.memory import keep_freed_blocks
from boatyard.training.signals import Stop

logger = logging.getLogger(__name__)

SAVE_EVERY = 60.0  # seconds between states within an epoch
LOOK_EVERY = 20  # steps between looks at the loss on a GPU, which each wait for it
ORDERED = 1024  # rows at once where nothing is learnt
CLOSE = 1e-4  # relative: what a loss may differ by where sums are taken in another order
MAX_NAMED = 8  # attributes that a message lists
UNKNOWN = "none that is found in model, features, loss or recipe: a file, or a library's own state"
CHECKED = 64  # rows that a model is tried on: whether it treats rows apart


@dataclass
class TrainingRun:
    """Where a run stands, apart from the weights: what a state saves and a resumed run takes up."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    seen: int = 0
    trained_seconds: float = 0.0
    best_epoch: int = 0
    best_loss: float = math.inf
    waited: int = 0
    stopped_early: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    best_on: dict[str, Any] = field(default_factory=dict)  # what decided the order of the best loss's sums
    diverged: str = ""


class Diverged(ConfigError):
    """A loss or a metric that is no number ended the steps."""


class Trainer:
    """One run: model, optimizer, rows and the place in it."""

    def __init__(
        self,
        config: TrainConfig,
        how: PreprocessConfig,
        dataset: Dataset,
        *,
        seal: str,
        root: Path,
        work: Path | None,
        world: World | None = None,
    ) -> None:
        self.config, self.how, self.dataset, self.seal = config, how, dataset, seal
        self.world = world or World(device_of(config))
        self.device = self.world.device
        self.work = work if self.world.first else None
        self.keeps = work is not None  # every process takes part in what the first writes
        seed_all(config.seed)
        self.recipe = recipes.make(config, how, dataset.schema, copy.deepcopy(dataset.statistics), root=root)
        self.code = provenance.code_of(type(self.recipe), root, recipes.texts(config))  # now: it may be edited later
        self.about = state_key.depends_on(config, how, dataset, seal, self.code)
        self.key = state_key.digest(self.about)
        self.features = checks.features_of(self.recipe).to(self.device)
        self.model = checks.model_of(self.recipe).to(self.device)
        checks.check_on(self.device, self.recipe, self.features, self.model)
        self.loss = checks.loss_of(self.recipe, config).to(self.device)
        self.head = losses.target(config.loss, dataset.schema, dataset.statistics)
        self.optimizer = optimisers.optimizer(config, self.model)
        warn_of_unseen(dataset)
        self.augment = Augmentation(how.augment, dataset.schema, dataset.statistics, self.world.part)
        self.rows: BatchSource = self._open("train")
        self.validation: BatchSource = self._open("validation")
        # batches in each step of an epoch
        self.groups = [len(step) for step in steps(dataset.rows("train"), config.batch_size, config.accumulate)]
        self.batches = len(self.groups)
        self.total = self.batches * config.epochs
        self.run = TrainingRun()
        self.sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.denominator = losses.denominator(self.loss)
        self.mass: Any = 0.0  # what the epoch's loss divides by: its rows, or their weights
        self.live = LiveState(
            self.model,
            {"features": self.features, "loss": self.loss, "recipe": self.recipe},
            own_modules(self.recipe, root),
        )
        self.unsaved: set[str] = set()
        self.compared = False
        self.best, self.best_live = snapshot(self.model), self.live.start
        self.saved_at = time.monotonic()

    def _open(self, split: Any) -> BatchSource:
        return open_split(
            self.dataset,
            split,
            self.head,
            self.device,
            size=self.config.batch_size,
            accumulate=self.config.accumulate,
            seed=self.config.seed,
            part=self.world.part,
        )

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters())

    def derived(self) -> dict[str, Any]:
        """Return what the project file did not say."""
        made = self.config.completed()
        return {
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "learning_rate": made.learning_rate,
            "weight_decay": made.weight_decay,
            "momentum": made.momentum,
            "steps_per_epoch": self.batches,
            "steps": self.total,
            "parameters": self.parameters,
            "rows_in_memory": self.in_memory,
            **self.world.derived(),
        }

    @property
    def in_memory(self) -> bool:
        return isinstance(self.rows, InMemory)

    # the run

    def train(self) -> None:
        """Go on from where the run stands to its end; raises Interrupted once a signal's state is saved."""
        config, run = self.config, self.run
        progress = Progress("train", config.epochs * self.dataset.rows("train"), "row")
        progress.update(run.epoch * self.dataset.rows("train") + run.seen)
        self.say_unsaved(self.live.start)
        try:
            while run.epoch < config.epochs and not run.stopped_early:
                self.train_epoch(progress)
                self.close_epoch()
                self.save()
        except Diverged as error:
            if not run.best_epoch:
                raise
            run.diverged = str(error)
            logger.warning(
                "%s. Training ends here; the model of epoch %d, the best before, is exported", error, run.best_epoch
            )

    def train_epoch(self, progress: Progress) -> None:
        """Take the epoch's remaining steps."""
        run, started = self.run, time.monotonic()
        before = run.trained_seconds
        look = LOOK_EVERY if self.device.type == "cuda" else 1
        pending: list[Tensor] = []
        for group in self.steps():
            rate = optimisers.rate(self.config, run.step, self.total)
            pending.append(self.step(group, rate))
            run.batch, run.step, run.seen = run.batch + 1, run.step + 1, run.seen + sum(map(len, group))
            asked = self.world.asked
            if len(pending) >= look or run.batch == self.batches or asked:
                loss = self.refuse_nan(pending, rate)
                pending = []
                done = run.epoch * self.dataset.rows("train") + run.seen - progress.done
                run.trained_seconds = before + time.monotonic() - started
                progress.update(done, loss=round(loss, 4), epoch=run.epoch + 1, rate=float(f"{rate:.3g}"))
            if asked:
                self.stop(asked)
            if self.world.due:
                self.save()

    def steps(self) -> Iterator[list[Rows]]:
        """Give the batches of each of the epoch's remaining steps."""
        done, run = self.run.batch, self.run
        batches = self.rows.shuffled(run.epoch, sum(self.groups[:done]))
        for count in self.groups[done:]:
            yield [next(batches) for _ in range(count)]

    def step(self, group: list[Rows], rate: float) -> Tensor:
        """Take one step on some batches as on one of all their rows; return its loss.

        Dropout and augmentation draw from a stream of the batch's own. Each batch's mean counts by what it was divided
        by, so that a last batch with fewer rows, or other weights, has its share of the step and no more.
        """
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        masses = [self.mass_of(rows) for rows in group]
        mass = sum(masses)
        taken: Tensor | None = None
        for number, rows in enumerate(group):
            reseed(self.device, seed_of("step", self.config.seed, self.run.step, *([number] if number else ())))
            outputs = self.outputs(rows)
            loss: Tensor = self.loss(self.world.whole(outputs.float(), len(rows)), rows.target)
            if len(group) > 1:
                loss = loss * (masses[number] / mass)
            loss.backward()
            taken = loss.detach() if taken is None else taken + loss.detach()
        assert taken is not None, "a step has a batch"
        self.world.sum_gradients(self.model, due=time.monotonic() - self.saved_at > SAVE_EVERY)
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.sum += taken * mass
        self.mass = self.mass + mass
        return taken

    def mass_of(self, rows: Rows) -> Any:
        """Return what a batch's mean loss is divided by: its rows, or the sum of their weights."""
        if self.denominator is None:
            return len(rows)
        return self.denominator(rows.target).to(self.device, torch.float64)

    def outputs(self, rows: Rows) -> Tensor:
        """Return what the model says of rows in training."""
        with torch.no_grad():
            count = len(rows)
            inputs = self.augment.noise(self.features(self.augment(rows.inputs, count)), count)
        low = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16")
        with low, self.world.batch(count):
            made: Tensor = self.model(inputs)
        return made

    def refuse_nan(self, pending: list[Tensor], rate: float) -> float:
        """Return the last loss; raises ConfigError with the first step whose loss is not a number."""
        values = torch.stack(pending).tolist()
        for index, value in enumerate(values):
            if not math.isfinite(value):
                step = self.run.step - len(values) + index + 1
                raise Diverged(
                    f"train: the loss is {value} at step {step} (epoch {self.run.epoch + 1}) with "
                    f"learning rate {rate:.3g}",
                    fix=(
                        f"try train.learning_rate={rate / 10:.1g}, train.clip=1 or a longer train.warmup, and "
                        "look for extreme values in the data"
                    ),
                )
        return float(values[-1])

    def close_epoch(self) -> None:
        """Measure on the validation split, keep the weights if they are the best, decide whether to stop."""
        run, config = self.run, self.config
        live = self.live.capture()  # before: what the model is when it is measured
        validation = self.validate()
        loss = validation["loss"]
        run.epoch, run.waited = run.epoch + 1, run.waited + 1
        if loss < run.best_loss:
            run.best_epoch, run.best_loss, run.best_on, run.waited = run.epoch, loss, self.machine(), 0
            self.best, self.best_live = snapshot(self.model), live
        if not self.compared:
            self.compare_processes(live, loss)
        run.stopped_early = config.patience is not None and run.waited >= config.patience
        line = {
            "epoch": run.epoch,
            "step": run.step,
            "train_loss": float(self.sum) / float(self.mass),
            **{f"validation_{name}": value for name, value in validation.items()},
            "learning_rate": optimisers.rate(config, run.step - 1, self.total),
            "images_per_second": round(run.seen / max(run.trained_seconds, 1e-9), 1),
            "seconds": round(run.trained_seconds, 3),
        }
        run.seconds += run.trained_seconds
        run.history.append(line)
        run.batch, run.seen, run.trained_seconds = 0, 0, 0.0
        self.sum.zero_()
        self.mass = 0.0
        self.log(line)

    def validate(self) -> dict[str, float]:
        """Return the loss and the recipe's metrics on the whole validation split."""
        outputs, target = self.predict(self.validation)
        with torch.no_grad():
            loss = self.loss_of(outputs, target)
            metrics = self.recipe.metrics(outputs, target)
        self.model.train()
        return {"loss": loss, **self.checked(metrics)}

    def predict(self, source: BatchSource) -> tuple[Tensor, Tensor]:
        """Return the model's outputs, in eval mode, and the targets of a split's rows."""
        outputs, targets = [], []
        reseed(self.device, seed_of("validate", self.config.seed, self.run.step))
        self.model.eval()
        with torch.no_grad():
            for rows in source.ordered(ORDERED):
                outputs.append(self.world.whole(self.model(self.features(rows.inputs)).float(), len(rows)))
                targets.append(rows.target)
        return torch.cat(outputs), torch.cat(targets)

    def loss_of(self, outputs: Tensor, target: Tensor) -> float:
        """Return the validation loss, of all rows at once; raises Diverged when it is no number."""
        loss = float(self.loss(outputs.clone(), target.clone()))  # metrics see them as they were
        if not math.isfinite(loss):
            self.model.train()
            raise Diverged(
                f"train: the validation loss is {loss} after step {self.run.step}",
                fix="try a tenth of the learning rate or train.clip=1",
            )
        return loss

    def checked(self, metrics: Any) -> dict[str, float]:
        """Return a recipe's metrics as they enter the log."""
        try:
            return logged_metrics.checked(metrics, self.config.recipe, self.run.epoch + 1)
        except ConfigError as error:
            raise Diverged(error.about, expected=error.expected, found=error.found, fix=error.fix) from error

    # what ships

    def restore_best(self) -> None:
        """Put back the best epoch's model and measure it again; raises ConfigError when it is not the one recorded.

        The same process, or one like it, takes the same sums in the same order: the loss is the same to the last bit.
        Elsewhere (another device, other threads) it may differ by what float32 sums do.
        """
        run = self.run
        self.best, self.best_live, apart = process_states.first_of(self.world, self.best, self.best_live)
        lost = self.put_back(self.best, self.best_live)
        outputs, target = self.predict(self.validation)
        with torch.no_grad():
            loss = float(self.loss(outputs.clone(), target.clone()))
        if not self.is_recorded(loss):
            names = sorted({*lost, *apart, *unsaved(self.live.start, self.best_live)})
            raise ConfigError(
                f"train: the model of epoch {run.best_epoch}, put back, has the validation loss {loss:.6g}, "
                f"{run.best_loss:.6g} was recorded",
                found="state that cannot be put back: " + (", ".join(names) or UNKNOWN),
                fix="keep what the model needs in parameters, buffers or attributes that are numbers and tensors",
            )
        names = changed(self.best_live, self.live.capture())
        if not self.world.every(not names):  # all go on together: each measures its own rows
            self.refuse_other_answers(outputs, names)
        self.put_back(self.best, self.best_live)
        self.model.eval()

    def is_recorded(self, loss: float) -> bool:
        """Return whether a loss is the one that was recorded for the best epoch."""
        if self.run.best_on == self.machine():
            return loss == self.run.best_loss
        return math.isclose(loss, self.run.best_loss, rel_tol=CLOSE, abs_tol=CLOSE)

    def refuse_other_answers(self, outputs: Tensor, names: list[str]) -> None:
        """Raise ConfigError when what changes while the model answers makes it answer otherwise the next time."""
        again, _ = self.predict(self.validation)
        if not torch.equal(again, outputs):
            raise ConfigError(
                "train: the model gives the same rows other scores the second time, in eval mode",
                found=f"changed while it answered: {listed(names, MAX_NAMED)}",
                fix="change state only where self.training is set",
            )

    def put_back(self, weights: Mapping[str, Tensor], live: Captured) -> list[str]:
        """Set the model, and all that is captured beside it; return the names of what could not be set."""
        lost = self.live.restore(live)
        self.model.load_state_dict(dict(weights))
        return lost

    # what is written

    def log(self, line: dict[str, float]) -> None:
        """Say an epoch's numbers, and add them to the live files beside the states."""
        if not self.world.first:
            return
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in line.items() if name not in ("epoch", "step"))
        logger.info("epoch %d of %d: %s", line["epoch"], self.config.epochs, numbers)
        if self.work:
            write_metrics(self.work, [line])

    def save(self) -> None:
        """Keep a state to go on from."""
        self.saved_at = time.monotonic()
        if self.keeps:
            state = process_states.gathered(self.world, self.state())
            if self.work:
                states.save(self.work, state, key=self.key, step=self.run.step)

    def state(self) -> states.State:
        """Return all that the rest of the run depends on."""
        live = self.live.capture()
        self.say_unsaved(live)
        values = {"live": dict(live.nodes), "best_live": dict(self.best_live.nodes), "unsaved": sorted(self.unsaved)}
        values |= {"run": vars(self.run), "about": dict(self.about), **self.machine()}
        held = states.prefixed("live", live.tensors) | states.prefixed("best_live", self.best_live.tensors)
        return states.State(self.tensors() | held, values)

    def say_unsaved(self, live: Captured) -> None:
        """Name what of the run's state a resumed run will not have, once."""
        names = [name for name in unsaved(self.live.start, live) if name not in self.unsaved]
        if names and self.world.first:
            logger.warning("cannot be saved, so a resumed run may differ from an unbroken one: %s", ", ".join(names))
        self.unsaved |= set(names)

    def compare_processes(self, live: Captured, loss: float) -> None:
        """Name the state that differs between the processes; raises ConfigError where the first's measures otherwise.

        The first's model is what ships: where its state is not that of the others, the loss that was measured by all
        of them, each with its own, may be no model's.
        """
        self.compared = True
        if self.world.part.size == 1:
            return
        weights, now = snapshot(self.model), self.live.capture()
        first_weights, first_live, names = process_states.first_of(self.world, weights, live)
        if not names:
            return
        if self.world.first:
            logger.warning("differs between the processes, each of which keeps its own: %s", listed(names, MAX_NAMED))
        self.put_back(first_weights, first_live)
        with torch.no_grad():
            again = self.loss_of(*self.predict(self.validation))
        self.put_back(weights, now)
        self.model.train()
        if again != loss:
            raise ConfigError(
                f"train: with the first process's state the validation loss is {again:.6g}, with each one's own it is "
                f"{loss:.6g}; one model ships",
                found=f"differs between the processes: {listed(names, MAX_NAMED)}",
                fix="train with one process, or keep of the rows only what all processes share (batch norm does)",
            )

    def machine(self) -> dict[str, Any]:
        """Return what decides in which order sums are taken."""
        return {"device": self.device.type, "threads": torch.get_num_threads(), "processes": self.world.part.size}

    def stop(self, signal: str) -> None:
        """Save and raise Interrupted."""
        self.save()
        self.world.wait()
        where = f"epoch {self.run.epoch + 1} step {self.run.step}"
        if self.world.first and self.work is None:
            raise Interrupted(f"{signal}: stopped at {where}", fix="nothing was saved, since no work folder was given")
        logger.warning("%s: saved at %s; run again to go on", signal, where)
        raise Interrupted(f"saved at {where}", fix="run again to go on")

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the run depends on."""
        made = states.prefixed("model", snapshot(self.model)) | states.prefixed("best", self.best)
        for index, state in self.optimizer.state_dict()["state"].items():
            made |= {
                f"optimizer.{index}.{name}": value.cpu().clone() for name, value in state.items() if value is not None
            }
        return {**made, "sum": self.sum.cpu().clone(), "mass": torch.tensor(float(self.mass), dtype=torch.float64)}

    def resume(self) -> bool:
        """Take up the newest state in the work folder; return whether there was one. The first process has it."""
        found = states.load(self.work, key=self.key, differs=self.differs) if self.work else None
        if self.world.part.size > 1:
            self.restore(states.unpack(self.world.same(states.pack(found or self.state()))))
        elif found:
            self.restore(found)
        if self.run.step:
            logger.info("going on from epoch %d step %d of %d", self.run.epoch + 1, self.run.step, self.total)
        if found:
            self.warn_of_another(found.values)
        return found is not None

    def differs(self, saved: Mapping[str, Any]) -> str:
        """Say what a saved run depended on that this one does not."""
        return state_key.differences(saved.get("about", {}), self.about)

    def warn_of_another(self, saved: Mapping[str, Any]) -> None:
        """Say that sums were taken in another order where a state was saved."""
        was, now = {"processes": 1, **saved}, self.machine()
        if {key: was[key] for key in now} != now:
            logger.warning(
                "the state was saved on %s with %d threads and %d processes, this is %s with %d and %d: the result may "
                "differ in the last bits",
                *(found[key] for found in (was, now) for key in now),
            )

    def restore(self, state: states.State) -> None:
        """Set weights, optimizer and place to those of a state, and what is each process's own to its own."""
        if self.world.part.size != state.values.get("processes", 1) and (apart := process_states.held_apart(state)):
            logger.warning(
                "each process held its own, now all have the first's, so the result may differ: %s",
                listed(apart, MAX_NAMED),
            )
        state = process_states.own(state, self.world.part)
        self.best = state.part("best")
        self.best_live = Captured(state.values["best_live"], state.part("best_live"))
        lost = self.put_back(state.part("model"), Captured(state.values["live"], state.part("live")))
        if names := sorted({*lost, *state.values["unsaved"]}):
            logger.warning("not as it was when the run was cut, so the result may differ: %s", ", ".join(names))
        self.unsaved |= set(names)
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in state.part("optimizer").items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        for weight, slot in self.optimizer.state.items():  # fused kernels want the weight's own layout (channels last)
            slot.update({k: torch.empty_like(weight).copy_(v) for k, v in slot.items() if v.shape == weight.shape})
        self.sum, self.mass = state.tensors["sum"].to(self.device), float(state.tensors["mass"])
        self.run = TrainingRun(**state.values["run"])


def run(
    config: TrainConfig,
    how: PreprocessConfig,
    dataset: Dataset,
    out: Path,
    *,
    seal: str,
    root: Path,
    work: Path | None,
) -> checkpoints.Training:
    """Train and write the checkpoint: see `boatyard.training.train`."""
    with reproducible(), disk_of(work or out), Stop() as stop, joined(device_of(config), stop) as world:
        started = time.monotonic()
        keep_freed_blocks()
        config = config.completed()
        try_recipe(config, how, dataset, root)
        trainer = Trainer(config, how, dataset, seal=seal, root=root, work=work, world=world)
        derived = trainer.derived()
        logger.info("train %s: %s", config.recipe, ", ".join(f"{k} {v}" for k, v in derived.items() if v is not None))
        if not trainer.resume() and trainer.work:
            states.clear(trainer.work)
        if trainer.work:
            start_metrics(trainer.work, trainer.run.history)
        with located(type(trainer.recipe), "training"):
            trainer.train()
        trainer.restore_best()
        if trainer.run.diverged:
            derived |= {"diverged": trainer.run.diverged}
        found = finish(trainer, out, derived, started)
    logger.info(
        "trained %s: %d of %d epochs in %.1f s, %.0f rows/s, best epoch %d with validation loss %.4g",
        found.recipe,
        found.epochs,
        config.epochs,
        found.seconds,
        found.rows_per_second,
        found.best_epoch,
        found.validation_loss,
    )
    return found


def finish(trainer: Trainer, out: Path, derived: dict[str, Any], started: float) -> checkpoints.Training:
    """Have the first process write the checkpoint, and every process say what the run came to."""
    if trainer.world.first:
        found = write_checkpoint(trainer, out, derived, time.monotonic() - started)
    else:
        found = summary(trainer, "", derived, time.monotonic() - started)
    trainer.world.wait()
    return found


def write_checkpoint(trainer: Trainer, out: Path, derived: dict[str, Any], seconds: float) -> checkpoints.Training:
    """Export the best weights, check the graph against them and write the checkpoint, whole or not at all."""
    dataset, schema = trainer.dataset, trainer.dataset.schema
    model = trainer.model.to("cpu")
    data, difference = export_trained(trainer, model)
    derived = derived | {"graph_difference": difference}
    onnx_model = external_data.split(data)
    found = summary(trainer, artifacts.digest_bytes(onnx_model.data), derived, seconds)
    record = checkpoints.Record(
        recipe=trainer.config.recipe,
        model=trainer.recipe.dials.model_dump(mode="json"),
        train=trainer.config,
        preprocess=trainer.how,
        seal=trainer.seal,
        dataset=dataset.digest,
        schema=schema.digest,
        epoch=found.best_epoch,
        step=found.best_epoch * trainer.batches,
        best={"validation_loss": found.validation_loss, **found.validation},
        graph=found.graph,
        rows_per_second=found.rows_per_second,
        derived=derived,
        versions={"boatyard": __version__, "torch": torch.__version__, "python": platform.python_version()},
        training=found,
    )
    weights = safetensors.torch.save({name: value.contiguous() for name, value in trainer.best.items()})
    made = lineage.made(trainer.code, train=trainer.config, preprocess=trainer.how)
    about = {"graph": found.graph, "seal": trainer.seal, "dataset": dataset.digest, "made": made}
    with checkpoints.write(
        out,
        record,
        graph=onnx_model.data,
        external=onnx_model.external,
        weights=weights,
        schema=schema.to_dict(),
        seal=about,
    ) as folder:
        start_metrics(folder, trainer.run.history)
    return found


def export_trained(trainer: Trainer, model: nn.Module) -> tuple[bytes, float]:
    """Export a trained model that treats rows apart; return it and how far it is from the model on validation rows."""
    dataset, schema = trainer.dataset, trainer.dataset.schema
    sample = next(dataset.batches("validation", CHECKED))
    trial = checks.trial_of(trainer.recipe, sample, trainer.features.to("cpu"), model, trainer.loss)
    checks.check_trained(trial)
    graph = checks.graph_of(trial)
    data = checks.exported(trial, graph)
    rows = (batch.inputs for batch in dataset.batches("validation", ORDERED))
    with checks.located(trial):
        return data, compare_all(data, graph, schema, rows)


def try_recipe(config: TrainConfig, how: PreprocessConfig, dataset: Dataset, root: Path) -> None:
    """Refuse a recipe with a mistake before any time is spent: its model is tried on rows, and exported."""
    if not dataset.rows("train"):
        return
    recipe = recipes.make(config, how, dataset.schema, copy.deepcopy(dataset.statistics), root=root)
    checks.check(recipe, next(dataset.batches("train", CHECKED)), graph=True)


def summary(trainer: Trainer, graph: str, derived: dict[str, Any], seconds: float) -> checkpoints.Training:
    """Return the run's numbers."""
    run = trainer.run
    best = run.history[run.best_epoch - 1]
    metrics = {
        name.removeprefix("validation_"): value for name, value in best.items() if name.startswith("validation_")
    }
    loss = metrics.pop("loss")
    return checkpoints.Training(
        recipe=trainer.config.recipe,
        parameters=trainer.parameters,
        epochs=run.epoch,
        steps=run.step,
        best_epoch=run.best_epoch,
        train_loss=best["train_loss"],
        validation_loss=loss,
        validation=metrics,
        rows_per_second=round(run.epoch * trainer.dataset.rows("train") / max(run.seconds, 1e-9), 1),
        seconds=round(seconds, 3),
        stopped_early=run.stopped_early,
        graph=graph,
        derived=derived,
    )


def start_metrics(folder: Path, history: list[dict[str, float]]) -> None:
    """Begin the files of metrics with what is known so far."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / checkpoints.METRICS).write_bytes(b"")
    tensorboard.start(folder / checkpoints.TENSORBOARD)
    write_metrics(folder, history)


def write_metrics(folder: Path, lines: list[dict[str, float]]) -> None:
    """Add epochs to the JSON lines and to TensorBoard's file."""
    for line in lines:
        with (folder / checkpoints.METRICS).open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        scalars = {name: value for name, value in line.items() if name not in ("epoch", "step")}
        tensorboard.append(folder / checkpoints.TENSORBOARD, int(line["step"]), time.time(), scalars)


def device_of(config: TrainConfig) -> torch.device:
    """Return where to train; raises ConfigError for a GPU that is not there."""
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, but torch finds no GPU here", fix="use auto or cpu")
    return torch.device("cuda")


def warn_of_unseen(dataset: Dataset) -> None:
    """Say which labels no training row has: the model cannot learn them."""
    counts = dataset.statistics["__target__"].get("counts", {})
    if unseen := [label for label in dataset.schema.labels if not counts.get(label)]:
        logger.warning("no training row is %s: the model will not learn to say so", ", ".join(unseen))


def reseed(device: torch.device, seed: int) -> None:
    """Seed the generators in use; `torch.manual_seed` spends 1 ms on the stack trace of every backend that is not."""
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    torch.default_generator.manual_seed(seed)


def seed_all(seed: int) -> None:
    """Seed the generators that a recipe may draw its first values from; torch's is seeded anew for each step."""
    torch.manual_seed(seed)
    random.seed(seed_of("random", seed))
    np.random.seed(seed_of("numpy", seed) % 2**32)


def own_modules(recipe: recipes.Recipe, root: Path) -> dict[str, types.ModuleType]:
    """Return the modules that a recipe was written in: its own, and what it imports that no distribution brings."""
    kind = type(recipe)
    if kind.__module__.partition(".")[0] == "boatyard":
        return {}
    files = {*reach(Modules(root), [kind.__module__], by_text=False).files.values()}
    found = {name: module for name, module in [*sys.modules.items()] if getattr(module, "__file__", None) in files}
    return {kind.__module__: sys.modules[kind.__module__], **found}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's weights and buffers, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


@contextlib.contextmanager
def disk_of(path: Path) -> Iterator[None]:
    """Within the block a full disk is said in our words; raises StorageError."""
    try:
        yield
    except OSError as error:
        raise artifacts.storage_error(path, error) from error


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Within the block torch gives the same bits for the same input; its global settings are put back after."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS is reproducible only with a workspace of its own
    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.set_num_threads(Settings().threads)
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # costs time and hides nothing here
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            "train: the GPU's memory is full", fix=f"give a smaller train.batch_size ({error})"
        ) from error
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise ConfigError(f"train: the recipe uses an operation that gives other bits each time: {error}") from error
    finally:
        settings.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(before)
        torch.set_num_threads(threads)
        torch.set_rng_state(drawn[0])
        random.setstate(drawn[1])
        np.random.set_state(drawn[2])
