"""
The `taskd` command: parse the command line, run a command, and exit with its code.

`taskd serve` runs the service; every other command is a client of a running one (`taskd.cli.commands`).
Exit codes: 0 success (with `run` and `logs -f`: the task succeeded), 1 the task failed, was cancelled or
was interrupted, or the service could not start, 2 bad usage or bad input, 3 the server cannot be reached,
4 the server refuses this client, 130 Ctrl-C (a followed task goes on), 141 the reader of the output closed
its pipe.
"""

import contextlib
import errno
import os
import sys
from typing import Any

import click

from taskd.cli.arguments import DEFAULT_SERVER
from taskd.errors import Invalid, PluginNotWritten, Refused, SettingsError, TaskdError, Unreachable
from taskd.system.signals import INTERRUPTED, StopSignals, loaded
from taskd.system.stdio import open_missing_streams, say
from taskd.version import __version__

PIPE_CLOSED = 141  # 128 + SIGPIPE

# Errors of a write to standard output. An error of a file that a command opens itself has a file name.
WRITING = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EAGAIN, errno.EBADF})

# The first class that an error is an instance of decides.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (SettingsError, 2),
    (PluginNotWritten, 2),
    (Invalid, 2),
    (Unreachable, 3),
    (Refused, 4),
    (TaskdError, 1),
)


def main() -> None:
    """Run the command and end the process with its exit code."""
    open_missing_streams()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # stdout is a TextIOWrapper
    try:
        # Not `cli.main`, which exits with 1 if a pipe is closed.
        with cli.make_context("taskd", sys.argv[1:]) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except OSError as error:
        code = _failed(error)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):  # if stderr fails too, only the exit code remains
            error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except TaskdError as error:
        say(str(error))
        code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    sys.exit(code or 0)


def _failed(error: OSError) -> int:
    """Report an error of the operating system; return the exit code for it."""
    if error.errno in WRITING and error.filename is None:
        # The interpreter flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED  # the reader has gone
        say(f"cannot write to standard output: {error.strerror}")
    else:
        say(f"{error.filename or 'the system refused a call'}: {error.strerror or error}")
    return 1


def serve(**options: Any) -> None:
    """
    Run the service until SIGINT, SIGTERM or SIGHUP.

    Each option is also an environment variable: --data-dir is TASKD_DATA_DIR. Exits with 1 if the
    service cannot start, and with 2 for a bad setting.
    """
    signals = StopSignals()
    from taskd.cli.options import settings_given
    from taskd.settings import load_settings, unknown_variables

    settings = load_settings(**settings_given(options))
    for line in unknown_variables():
        say(line)
    from taskd.server.server import run as run_server

    try:
        run_server(settings, signals)
    finally:
        signals.over()


class ServeCommand(click.Command):
    """`taskd serve`: the flags, one for each setting, are loaded on first use."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        """Return the flags and `--help`."""
        if not self.params:
            from taskd.cli.options import settings_options

            self.params = [*settings_options()]
        return super().get_params(context)


class Commands(click.Group):
    """`serve`, and the client commands, which are loaded on first use: a server does not need them."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return the command of that name, or None."""
        if name not in self.commands:
            self._load()
        return super().get_command(context, name)

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands, in order."""
        self._load()
        return super().list_commands(context)

    def _load(self) -> None:
        from taskd.cli.commands import clients

        self.commands.update(clients.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="taskd %(version)s")
@click.option(
    "--server",
    envvar="TASKD_SERVER",
    default=DEFAULT_SERVER,
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="The taskd to ask.",
)
@click.option("--token", envvar="TASKD_TOKEN", show_envvar=True, metavar="TOKEN", help="Its token, if it has one.")
@click.pass_context
def cli(context: click.Context, server: str, token: str | None) -> None:
    """Run asyncio plugins as tasks, and give every task its own log."""
    if context.invoked_subcommand != "serve":
        loaded()
    context.obj = {"server": server, "token": token}


cli.add_command(ServeCommand("serve", callback=serve, help=serve.__doc__))
