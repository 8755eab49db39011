"""The command's group, its verbs as this folder has them, and the one place where errors end.

Exit codes: 0 done; 1 failed, with one clear message; 2 wrong usage; 3 refused by the gate; 75 interrupted, work saved.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any

import click

import boatyard
from boatyard import cli as folder
from boatyard.api.saying import say
from boatyard.cli.options import Verb, VerbGroup
from boatyard.errors import BoatyardError, Interrupted, Refused, UsageError

EXIT_CODES = {UsageError: 2, Refused: 3, Interrupted: 75}
STOPPED = 130  # 128 + SIGINT, as a shell has it


class Verbs(click.Group):
    """Every verb of this folder, in the order of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.commands, key=lambda name: (getattr(self.commands[name], "place", 0), name))

    def invoke(self, ctx: click.Context) -> Any:
        """Take a reader that has left, as `head` does, for one that has seen enough; click would exit 1."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except BrokenPipeError:
            from boatyard.running import display

            display.mute(sys.stdout)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(boatyard.__version__, prog_name="boatyard")
@click.option("-v", "--verbose", is_flag=True, help="Log what goes on inside.")
def cli(verbose: bool) -> None:
    """From data to a measured KServe endpoint; the same pipeline runs on a laptop and on a cluster.

    A project is a folder with a boatyard.yaml. Start with:  boatyard init demo && boatyard run demo
    """
    import logging

    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)


def collect() -> None:
    """Add the verbs of every file of this folder to the command."""
    for module in pkgutil.iter_modules(folder.__path__):
        found = importlib.import_module(f"{folder.__name__}.{module.name}")
        own = {id(value): value for value in vars(found).values() if isinstance(value, Verb | VerbGroup)}
        inner = {id(verb) for group in own.values() if isinstance(group, VerbGroup) for verb in group.commands.values()}
        for key, verb in own.items():
            if key not in inner:
                cli.add_command(verb)


def main() -> None:
    """Run the command; every error of ours ends in one message and its exit code."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        say("stopped")
        raise SystemExit(STOPPED) from None
    except BoatyardError as error:
        say(f"boatyard: {error}")
        raise SystemExit(EXIT_CODES.get(type(error), 1)) from None
    except OSError as error:
        say(f"boatyard: {error.filename or 'a file'}: {error.strerror or error}")
        raise SystemExit(1) from None


collect()
