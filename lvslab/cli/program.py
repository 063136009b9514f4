"""The program behind ``./run``: Invoke, with optional positional arguments and help pages of our own.

It adds to ``invoke.Program``: usage errors that say what would be right, and an exit status for each kind
of failure (``errors.py``). The modules in ``cli/tasks`` define commands with a Group::

    group = Group("lab")

    @group.task(positional=["lab"], help={"lab": "a folder in labs/"})
    def up(c: Context, lab: str = "web-nat", name: str = "", apply: bool = True) -> None: ...

    lab.up   lab.up web-nat   lab.up web-nat --name a --no-apply   lab.up lab.check lab.down

A positional argument with a default is optional; the default must not be None, or Invoke demands the
argument. A positional argument or an option without a default is required. After an optional positional
argument, a word that is a command's name is that command: ``lab.up --lab test`` starts a lab called "test",
``lab.up test`` runs two commands.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from errno import EACCES, EDQUOT, ENOSPC, ENOTDIR, EROFS
from importlib import util
from inspect import cleandoc, signature
from pathlib import Path
from signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal
from typing import Any, NoReturn

from lvslab import paths
from lvslab.cli import report_options
from lvslab.cli.command_line import CommandLine, no_command, option, placeholder
from lvslab.cli.invoke_lite import (
    Argument,
    Collection,
    Exit,
    ParseError,
    Parser,
    Program,
    Task,
    UnexpectedExit,
    helpline,
)
from lvslab.cli.invoke_lite import task as invoke_task
from lvslab.cli.text.layout import colourful, document
from lvslab.errors import BuildError, LvsLabError, MachineError, UsageError
from lvslab.paths import PROJECT

BUG = 70
"""Exit status of a fault in lvslab itself (EX_SOFTWARE in sysexits.h); 1 would claim that a check failed."""

TRIAL = "kernel.try"
"""The command whose exit status ``git bisect run`` reads."""

INTRO = """\
lvslab builds a kernel, boots a Linux Virtual Server cluster around it, applies
a how-to's own commands over SSH, and checks with real traffic that the cluster
does what the how-to says."""

BEGIN = (
    ("./run lab.up", "boot the tutorial's web cluster and see how it balances"),
    ("./run test", "run the tests, except those that take minutes"),
)

OPTIONS = (
    ("-h, --help [COMMAND]", "show this page, or the help of one command"),
    ("-l, --list [GROUP]", "list the commands, or those of one group"),
    ("-d, --debug", "log in detail to stderr"),
    ("-V, --version", "print lvslab's version"),
)

Body = Callable[..., None]


class Group(Collection):
    """A group of commands. ``@group.task(...)`` makes a function a command of it.

    The commands are listed in the order in which they are defined. ``texts`` are the help texts of
    parameters that several of them have.
    """

    def __init__(self, *name: str, **texts: str) -> None:
        super().__init__(*name)
        self._texts = {"json": "print one JSON document", **texts}

    def task(
        self, *, reports: str | None = None, rest: str = "", **options: Any
    ) -> Callable[[Body], Task[Body]]:
        """Invoke's ``@task(...)``, typed, and without one-letter options: they change as arguments do.

        With ``reports``, a note on the place of the first one, the parameter of that name becomes an option
        for each format of reports. ``rest`` names the parameter that takes the words after ``--``.
        """

        def decorate(body: Body) -> Task[Body]:
            texts = {name: self._texts[name] for name in signature(body).parameters if name in self._texts}
            if reports is not None:
                body = report_options.expand(body)
                texts |= report_options.help_texts(reports)
            options["help"] = texts | options.get("help", {})
            command: LabTask = invoke_task(klass=LabTask, auto_shortflags=False, **options)(body)
            command.rest = rest
            self.add_task(command)
            return command

        return decorate


def say(value: Any, json: bool, as_text: Callable[[Any], str]) -> None:
    """Print a result as ``as_text`` of it, or as one JSON document.

    The document is ``value.as_json()`` where there is such a method.
    """
    if json:
        document(value.as_json() if hasattr(value, "as_json") else value)
    else:
        print(as_text(value))


def end(status: int) -> None:
    """End a command with ``status``, without an error message."""
    if status != 0:
        raise Exit(code=status)


class LabTask(Task[Body]):
    """A task whose arguments can be asked for repeatedly; Invoke's own loses their help texts.

    ``rest`` is the name of the parameter that takes the words after ``--``, "" for none.
    """

    rest = ""

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        texts = dict(self.help)
        try:
            return super().get_arguments(ignore_unknown_help)
        finally:
            self.help = texts


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line ``argv`` (without the program's name; default: the process's) and exit."""
    # ./run disables the collector while Python starts. What is loaded by now needs no collection.
    gc.freeze()
    gc.enable()
    if getsignal(SIGINT) == SIG_DFL:  # set by ./run while Python starts, so that Ctrl-C prints no traceback
        signal(SIGINT, default_int_handler)
    status = LabProgram().status_of(["./run", *(sys.argv[1:] if argv is None else argv)])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        sys.exit(status)  # Python reports what is wrong with the streams when it exits
    # A normal exit would clear every module, which takes as long as a short command.
    os._exit(status)


class LabProgram(Program):
    """Invoke's program with the commands of ``collection``; by default those of ``tasks.py``."""

    def __init__(self, collection: Collection | None = None) -> None:
        super().__init__(namespace=collection or Collection(), name="lvslab", binary="./run")
        self.given = collection is not None
        self.debugging = False

    def run(self, argv: Any = None, exit: bool = True) -> None:
        status = self.status_of(argv)
        if exit:
            sys.exit(status)

    def status_of(self, argv: Sequence[str]) -> int:
        """Run ``argv``, report any error on stderr, and return the exit status."""
        status = self._status_of(argv)
        return for_bisect(status) if TRIAL in argv else status

    def _status_of(self, argv: Sequence[str]) -> int:
        try:
            self.create_config()
            self.normalize_argv(list(argv))
            self.parse_core_args()
            if self.args.version.value:
                self.print_version()
                return 0
            self.parse_collection()
            self.parse_tasks()
            self.debugging = bool(self.args.debug.value)
            log_to_stderr(logging.DEBUG if self.debugging else logging.WARNING)
            self.parse_cleanup()
            self.update_config()
            # The same command twice on one line runs twice: lab.check lab.check.
            self.config.load_overrides({"tasks": {"dedupe": False}})
            self.execute()
            sys.stdout.flush()
        except Exit as ending:
            if ending.message:
                report(ending.message)
            return ending.code
        except ParseError as error:
            report(str(error), "./run --list shows all commands")
            return UsageError.exit_code
        except UnexpectedExit as failure:
            return int(failure.result.exited)
        except LvsLabError as error:
            report(error.message, error.hint)
            if self.debugging:
                print_traceback()
            return error.exit_code
        except KeyboardInterrupt:
            report("interrupted")
            return 130
        except BrokenPipeError:
            if stdout_has_a_reader():
                print_traceback()
                return BUG
            # Discard what is still buffered; else Python prints an error message at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except OSError as refused:
            file = refused.filename
            if refused.errno in (EACCES, ENOTDIR, EROFS) and file:
                report(f"{file} cannot be used: {refused.strerror}", own_folder(file))
                return MachineError.exit_code
            if refused.errno not in (ENOSPC, EDQUOT):
                return fault(refused)
            report(
                f"there is no space left on the disk{f' for {file}' if file else ''}",
                "free some space, or set LVSLAB_CACHE and LVSLAB_STATE to folders on another disk",
            )
            return BuildError.exit_code
        except Exception as error:
            return fault(error)
        return 0

    def parse_collection(self) -> None:
        if not self.given:
            spec = util.spec_from_file_location("tasks", PROJECT / "tasks.py")
            assert spec and spec.loader
            module = sys.modules["tasks"] = util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.namespace = module.ns  # Collection.from_module would copy all commands
        super().parse_collection()

    def parse_tasks(self) -> None:
        self.line = CommandLine(self.collection, self.initial_context)
        words = self.core.unparsed
        if "--" in self.argv and not self.args.complete.value:  # Invoke cuts the words off from there on
            words = [*words, *self.argv[self.argv.index("--") :]]
        self.core.unparsed = self.line.spell_out(words)
        if self.line.help_on:
            self.args.help.value = self.line.help_on
        super().parse_tasks()

    def _make_parser(self) -> Parser:
        """Make a parser for the commands on the command line. It would copy all that it gets."""
        words = [*self.core.unparsed, *self.core.remainder.split(), self.args.help.value]
        named = {self.line.contexts[word] for word in words if word in self.line.contexts}
        return Parser(named, initial=self.initial_context)

    def parse_cleanup(self) -> None:
        if isinstance(command := self.args.help.value, str) and command not in self.line.contexts:
            no_command(command, self.collection)
        if isinstance(group := self.args.list.value, str) and group not in self.collection.collections:
            groups = ", ".join(self.collection.collections)
            raise UsageError(f"no group of commands {group!r}", f"the groups are: {groups}")
        super().parse_cleanup()

    def print_version(self) -> None:
        from importlib.metadata import version

        print(f"lvslab {version('lvslab')}")

    def print_help(self) -> None:
        self.list_flat()
        self._section("Options", OPTIONS)

    def list_flat(self) -> None:
        if not self.list_root:
            print(f"{INTRO}\n")
            self._section("Begin with", BEGIN)
            print(f"{bold('Usage')}: ./run [OPTIONS] COMMAND [ARGUMENTS] [COMMAND [ARGUMENTS]]...\n")
        for group, rows in self._groups():
            if rows and self.list_root in (None, group):
                self._section(group or "The project itself", rows)

    list_nested = list_flat

    def print_task_help(self, name: str) -> None:
        context = self.line.contexts[name]
        arguments = list(context.args.values())
        words = [name, *map(placeholder, context.positional_args)]
        options = [argument for argument in arguments if not argument.positional]
        print(f"{bold('Usage')}: ./run {' '.join(words)}{' [OPTIONS]' if options else ''}\n")
        print(cleandoc(self.collection[name].__doc__ or "") + "\n")
        self._section("Arguments", [(placeholder(a), a.help or "") for a in context.positional_args])
        self._section("Options", [(option(a), a.help or "") for a in options])

    def _groups(self) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Yield each group of commands with its rows for print_columns, in the order of ``tasks.py``."""
        for group, collection in [*self.collection.collections.items(), ("", self.collection)]:
            rows = []
            for short, command in collection.tasks.items():
                name = f"{group}.{short}" if group else short
                words = [name, *map(placeholder, self.line.contexts[name].positional_args)]
                rows.append((" ".join(words), helpline(command) or ""))
            yield group, rows

    def _section(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        if rows:
            print(f"{bold(title)}:")
            self.print_columns(rows)


def for_bisect(status: int) -> int:
    """Convert the exit status of ``kernel.try`` into one for ``git bisect run``.

    Git takes 0 for good, 125 for skip, any other of 1 to 127 for bad, and stops at 128 and above. So only
    the answer may be 1. A mistake in the command line is the same for every commit and must stop git, as
    Ctrl-C does.
    """
    from lvslab.matrix import bisect
    from lvslab.outcome import Outcome

    if status == UsageError.exit_code:
        return bisect.STOP
    return status if status in (*bisect.STATUS.values(), 130) else bisect.STATUS[Outcome.ERROR]


def bold(text: str) -> str:
    """Make ``text`` bold if stdout is a terminal and NO_COLOR is not set."""
    return f"\x1b[1m{text}\x1b[0m" if colourful(sys.stdout) else text


def report(message: str, hint: str | None = None) -> None:
    """Print an error and its hint on stderr."""
    print(f"error: {message}" + (f"\n  {hint}" if hint else ""), file=sys.stderr)


def log_to_stderr(level: int) -> None:
    """Log lvslab's messages to stderr; other packages' loggers stay silent at any level."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(relativeCreated)6d ms  %(name)s: %(message)s"))
    logger = logging.getLogger("lvslab")
    logger.handlers = [handler]
    logger.setLevel(level)
    for noisy in ("invoke", "paramiko"):
        logging.getLogger(noisy).handlers = [logging.NullHandler()]


def own_folder(name: object) -> str | None:
    """Return the hint for an unusable file ``name`` in a folder of lvslab's own."""
    for variable, folder in (("LVSLAB_CACHE", paths.cache()), ("LVSLAB_STATE", paths.state())):
        if Path(str(name)).is_relative_to(folder):
            return f"set {variable} to use another folder than {folder}"
    return None


def print_traceback() -> None:
    """Print the traceback of the exception that is being handled."""
    import traceback

    traceback.print_exc()


def fault(error: Exception) -> int:
    """Report a fault in lvslab itself, with its traceback."""
    print_traceback()
    report(f"this is a fault in lvslab: {type(error).__name__}")
    return BUG


def stdout_has_a_reader() -> bool:
    """Return whether stdout still has a reader, so that another pipe was the broken one."""
    from select import poll

    events = poll()
    events.register(sys.stdout.fileno(), 0)
    return not events.poll(0)
