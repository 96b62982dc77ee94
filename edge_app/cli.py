"""`calmcam`: the command line. Commands are imported when called; errors become one sentence and an exit code."""

from __future__ import annotations

import difflib
import importlib
import io
import logging
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import CalmcamError, InputError, MissingPackage
from .files import stamp
from .signals import heard, let_go_of_pipes, raise_stopped

LEVELS = ("debug", "info", "warning", "error")
COMMANDS = {  # name: (module:attribute, short help, extra that brings what the module needs)
    "live": ("edge_app.commands.live:live", "Camera or stream, drawn in a window or headless.", ""),
    "annotate": ("edge_app.commands.annotate:annotate", "Video and image files to annotated copies and results.", ""),
    "moments": ("edge_app.commands.moments:moments", "Cut the best moments out of what was annotated.", ""),
    "benchmark": ("edge_app.commands.benchmark:benchmark", "Latency and throughput per stage and end to end.", ""),
    "evaluate": ("edge_app.commands.evaluate:evaluate", "Report card of a model on a labelled folder.", ""),
    "models": ("edge_app.commands.models:models", "List, show and verify the installed models.", ""),
    "doctor": ("edge_app.commands.doctor:doctor", "What is there, what is broken, and what mends it.", ""),
    "demo": ("edge_app.commands.demo:demo", "Annotate a short clip made from the NASA portrait.", ""),
    "crop": ("edge_app.commands.crop:crop", "Cut the faces out of labelled pictures and clips, to train on.", ""),
    "train": ("trainer.cli:train", "Train a model from a recipe.", "train"),
    "export": ("trainer.export_cli:export", "Quantise a trained run and write its manifest.", "train"),
    "average": ("trainer.average_cli:average", "The mean of the weights of several runs, as a run.", "train"),
    "fit-crop": ("trainer.cropfit_cli:fit_crop", "Measure which face crop fits a trained run.", "train"),
    "compile": ("deploy.cli:compile_command", "Compile a model for a Hailo accelerator.", ""),
    "parity": ("deploy.parity_cli:parity", "Do two artifacts of a model say the same?", ""),
}

ELSEWHERE = {  # the words of other programs
    "predict": "annotate", "run": "live", "track": "live", "detect": "live", "stream": "live", "camera": "live",
    "val": "evaluate", "deploy": "compile",
    "--input": "--source", "-i": "--source", "--weights": "--model", "--hef-path": "--model", "--hef": "--model",
    "-m": "--model", "-n": "--model", "--max-det": "--max-faces", "--project": "-o", "--name": "-o", "--output": "-o",
    "--view-img": "--show", "--frame-rate": "--fps", "--debug": "-v",
}  # fmt: skip
NO_FLAG = {  # what they have a flag for
    "--track": "live and annotate track faces without a flag.",
    "--list-models": "calmcam models lists them.",
    "--list-inputs": "calmcam doctor lists cameras.",
    "--epochs": "Training takes it as --set stages.0.epochs=3 and so on.",
    "--batch": "Training takes it as --set batch=64.",
    "--imgsz": "Training takes it as --set input.size=96.",
}
BARE = {"--source": "FILE", "--model": "MODEL"}  # what some commands take without a flag


@dataclass
class Globals:
    """What the options of `calmcam` itself say; the same options are understood after the subcommand, too."""

    config: Path | None = None
    level: str = ""  # none was named
    verbose: bool = False


class LazyGroup(click.Group):
    """Knows its commands by name and help; imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise _failure(_missing(name, error), ctx) from error
        for one in (command, *getattr(command, "commands", {}).values()):
            known = {option.name for option in one.params}
            one.params.extend(option for option in _global_options() if option.name not in known)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            near = [ELSEWHERE[args[0]]] if args[0] in ELSEWHERE else difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; calmcam --help lists them"
            ctx.fail(f"unknown command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[1]) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; whatever fails becomes one sentence on stderr and an exit code."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            _hint(error)
            raise
        except (click.ClickException, click.exceptions.Exit) as error:
            if isinstance(error, click.UsageError):
                _hint_at_source(error)
            let_go_of_pipes()
            raise
        except (click.Abort, KeyboardInterrupt) as stopped:
            raise _ended(stopped) from stopped
        except ImportError as error:
            raise _failure(_missing(str(ctx.invoked_subcommand), error), ctx) from error
        except BrokenPipeError as error:  # `| head` has enough: no mistake of anybody's
            let_go_of_pipes()
            raise click.exceptions.Exit(128 + signal.SIGPIPE) from error
        except Exception as error:
            if stopped := _interrupt(error):
                raise _ended(stopped) from error
            raise _failure(error, ctx) from error


def _interrupt(error: BaseException | None) -> BaseException | None:
    """The signal that came before `error`, one that we do not know: a lock in use says RuntimeError then."""
    while error and not isinstance(error, (KeyboardInterrupt, CalmcamError)):
        error = error.__context__
    return error if isinstance(error, KeyboardInterrupt) else None


def _ended(stopped: BaseException) -> click.exceptions.Exit:
    """Say that a signal ended it; 128 + its number is the shell's convention."""
    traceback.clear_frames(stopped.__traceback__)  # what they held open ends: stderr may be elsewhere (tflite.quiet)
    with suppress(OSError):
        click.echo("stopped", err=True)
    let_go_of_pipes()
    return click.exceptions.Exit(128 + getattr(stopped, "number", signal.SIGINT))


def _hint(error: click.NoSuchOption) -> None:
    """Name what the command calls the flag of another program."""
    ours = ELSEWHERE.get(error.option_name, error.option_name)
    params = error.ctx.command.params if error.ctx else []
    if any(ours in one.opts for one in params):
        error.possibilities = [ours]
    elif any(isinstance(one, click.Argument) and BARE.get(ours, " ") in one.human_readable_name for one in params):
        error.message, error.possibilities = f"{error.message} Name {BARE[ours]} without a flag.", []
    elif error.option_name in NO_FLAG:
        error.message, error.possibilities = f"{error.message} {NO_FLAG[error.option_name]}", []


def _hint_at_source(error: click.UsageError) -> None:
    """Name --source where what it takes was given without it."""
    params = error.ctx.command.params if error.ctx else []
    if "unexpected extra argument" in error.message and any("--source" in one.opts for one in params):
        error.message += ". Name a camera, file or address with --source."


def _missing(name: str, error: ImportError) -> CalmcamError:
    extra = COMMANDS[name][2]
    mend = (f"in calmcam's folder: pip install '.[{extra}]'",) if extra else ()
    return MissingPackage.of(f"calmcam {name}", error, *mend)


def _failure(error: Exception, ctx: click.Context) -> click.ClickException:
    if ctx.ensure_object(Globals).verbose:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if isinstance(error, OSError) and isinstance(error.filename, str):
        error = InputError(f"{error.filename}: {error.strerror}; check the place and its permissions (-v shows where)")
    sentence = " ".join(str(error).split())
    if not isinstance(error, CalmcamError):
        sentence = f"unexpected {type(error).__name__}: {sentence or 'no message'} (-v shows where)"
    failure = click.ClickException(sentence)
    failure.exit_code = getattr(error, "exit_code", 1)
    return failure


def _global_options() -> list[click.Option]:
    """`--config`, `--log-level`, `-v`; made anew for each command because click keeps state in them."""
    help_level = f"One of {', '.join(LEVELS)}."
    return [
        click.Option(["--config"], type=click.Path(path_type=Path), metavar="FILE.toml", expose_value=False,
                     callback=_remember("config"), help="Settings file  [default: ~/.config/calmcam/config.toml]."),
        click.Option(["--log-level"], type=click.Choice(LEVELS, case_sensitive=False), metavar="LEVEL",
                     expose_value=False, callback=_remember("level"), help=help_level),
        click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_remember("verbose"),
                     help="Say more, and show where errors come from."),
    ]  # fmt: skip


def _remember(name: str) -> Any:
    def callback(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        known = ctx.find_root().ensure_object(Globals)
        if value:
            setattr(known, name, value)
        level = (known.level or ("info" if known.verbose else "warning")).upper()
        logging.getLogger().setLevel(level)
        for chatty in ("PIL", "matplotlib"):
            logging.getLogger(chatty).setLevel(max(logging.getLogger().level, logging.WARNING))

    return callback


class _Stderr(logging.Handler):
    """Writes to what `sys.stderr` is at that moment, so that a progress bar can make room."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # a log that takes no more is no reason to end
            sys.stderr.write(f"{stamp(sys.stderr)}{self.format(record)}\n")


def _log_to_stderr() -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, _Stderr) for handler in root.handlers):
        handler = _Stderr()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)


@click.group(cls=LazyGroup, params=_global_options(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="calmcam")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Reads faces: finds them in camera pictures, videos and images, and says what they express."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that is not UTF-8 shows what it lacks escaped
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    os.environ.setdefault("GLOG_minloglevel", "2")  # MediaPipe's C++ chatter, read when it is imported
    _log_to_stderr()
    ctx.with_resource(heard(raise_stopped, signal.SIGTERM, signal.SIGHUP))  # `Signals` of a command come before


def main() -> None:
    """Entry point of the `calmcam` command."""
    cli(prog_name="calmcam")
