"""The command line: ``cowcloop``.

One file per command or family; `app` gathers them. Modules import what is heavy inside their
functions, so that a command starts quickly.
"""

from __future__ import annotations

# This module loads little: see main().
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are one line on standard error."""
    # Before a command runs and after it, Ctrl-C just ends the program: Python would print a
    # traceback. The module signal would take longer to load than everything before this line.
    signal = __import__("_signal")
    program = arguments is None
    if program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cowcloop.cli import streams

    streams.open_missing()
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except BaseException as error:
        return _failed(error)
    finally:
        streams.drop_unwritten()


def _run(arguments: Sequence[str]) -> int:
    import gc
    import os

    # A command's imports stay in use until it ends. Looking for garbage among them, now and
    # when Python ends, would take an eighth of a short command's time.
    gc.disable()
    from cowcloop import _core, signals
    from cowcloop.cli import console, streams
    from cowcloop.cli.app import app, split_arguments

    gc.freeze()
    gc.enable()
    if "_COWCLOOP_COMPLETE" in os.environ:
        from cowcloop.cli import completion

        completion.register()
    _core.on_warning(console.warning)
    _core.name_commands(True)
    streams.take_any_name()
    own, nbdkit_args = split_arguments(arguments)
    try:
        with signals.raised():
            code = app.main(
                own or ["-h"],
                prog_name="cowcloop",
                standalone_mode=False,
                obj=console.State(nbdkit_args),
            )
            # What is still buffered is part of the result.
            sys.stdout.flush()
    finally:
        _core.on_warning(None)
        _core.name_commands(False)
        gc.freeze()
    if not own:
        return 2
    return code if isinstance(code, int) else 0


def _failed(error: BaseException) -> int:
    """Say what went wrong, in one line; the exit code."""
    import os
    import signal

    import click

    from cowcloop.cli import console
    from cowcloop.errors import CowcloopError, ExistsError, limit_reached
    from cowcloop.signals import Interrupted

    if console.debug_wanted() and not isinstance(error, (click.ClickException, click.Abort)):
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, (Interrupted, click.Abort)):
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        # A command may add what it leaves behind.
        console.interrupted(f"interrupted{by}: {error}" if str(error) else f"interrupted{by}")
        # The exit code that a shell reports for a program ended by a signal.
        return 128 + number
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError) and not error.filename:
        # The reader of our output has gone.
        return 1
    if isinstance(error, click.ClickException):
        console.error(_usage(error))
        return error.exit_code
    if isinstance(error, ExistsError):
        console.error(f"{error}, or replace it with --force")
    elif isinstance(error, CowcloopError):
        console.error(str(error))
    elif isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        console.error(f"{where}{error.strerror}{limit_reached(error.errno)}")
    else:
        kind = type(error).__name__
        console.error(
            f"internal error: {kind}: {error} (run it with --debug and report what it says)"
        )
    return 1


def _usage(error: object) -> str:
    import re

    import click

    assert isinstance(error, click.ClickException)
    text = error.format_message().rstrip(".")
    # click words it in two ways, for one name and for several.
    near = re.fullmatch(r"(.*)\. \(?Did you mean (?:one of: )?(.*)\?\)?", text)
    if near:
        text = f"{near[1]}: did you mean {near[2].replace(', ', ' or ')}?"
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None:
        text += f" (see {context.command_path} --help)"
    return text
