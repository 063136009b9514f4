"""Translation of the command line as typed into one that Invoke's parser understands.

Invoke has no optional positional arguments; here they become options. Wrong usage raises a UsageError that
says what would be right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lvslab.cli.invoke_lite import Argument, Collection, ParserContext, to_flag
from lvslab.errors import UsageError


class CommandLine:
    """Rewrites the words of a command line for Invoke's parser, and rejects wrong usage."""

    def __init__(self, collection: Collection, core: ParserContext) -> None:
        self.collection = collection
        self.core = core
        self.contexts = {
            name: context
            for context in collection.to_contexts()
            for name in (context.name or "", *context.aliases)
        }
        self.help_on: str | None = None
        """The command that stands before ``--help``; Invoke would report a missing positional argument."""

    def spell_out(self, tokens: Sequence[str]) -> list[str]:
        """Rewrite positional arguments as options: ``lab.up x`` as ``lab.up --lab=x``. Raises UsageError."""
        rest, core, spelled = deque(tokens), list[str](), list[str]()
        context, seen = self.core, set[str | None]()
        while rest:
            token = rest.popleft()
            flag, equals, value = token.partition("=")
            open_places = [a for a in context.positional_args if a.name not in seen]
            if token == "--":
                spelled += self._rest(context, rest, seen)
                break
            if argument := flagged(context, context.inverse_flags.get(flag, flag)):
                if argument.takes_value and not argument.optional:
                    if not equals and (not rest or rest[0] in {*context.flag_names()}):
                        raise UsageError(f"{flag} needs a value")
                    value = value if equals else rest.popleft()
                    self._check_value(argument, flag, value, seen)
                    token = f"{flag}={value}"
                elif equals and not argument.takes_value:
                    raise UsageError(f"{flag} takes no value, so not {value!r}")
                spelled.append(token)
                seen.add(argument.name)
            elif argument := flagged(self.core, flag):
                if argument.name == "help":
                    self.help_on = context.name
                    return []
                # To the front, or Invoke would take it for a positional argument.
                (spelled if argument.takes_value else core).append(token)
            elif token.startswith("-") and token != "-":
                self._no_option(flag, context)
            elif token in self.contexts and not any(a.default is None for a in open_places):
                self._check_complete(context, seen)
                context, seen = self.contexts[token], set()
                spelled.append(token)
            elif open_places:
                spelled.append(f"{to_flag(open_places[0].names[0])}={token}")
                self._check_value(open_places[0], placeholder(open_places[0]), token, seen)
                seen.add(open_places[0].name)
            else:
                no_command(token, self.collection)
        self._check_complete(context, seen)
        return core + spelled

    def _rest(self, context: ParserContext, words: Sequence[str], seen: set[str | None]) -> list[str]:
        """Spell out the ``words`` after ``--``, joined by spaces as ssh does. Raises UsageError."""
        name = "" if context is self.core else self.collection[context.name].rest
        if not name:
            of = f"{context.name} takes" if context is not self.core else "there are"
            raise UsageError(f"{of} no words after '--', and here is {' '.join(words)!r}")
        argument, text = context.args[name], " ".join(words)
        self._check_value(argument, "COMMAND after '--'", text, seen)
        seen.add(name)
        return [f"{to_flag(argument.names[0])}={text}"]

    def _check_value(self, argument: Argument, shown: str, value: str, seen: set[str | None]) -> None:
        if argument.name in seen and argument.kind is not list:
            raise UsageError(f"{shown} is given twice")
        if not value:
            raise UsageError(f"{shown} is empty", "is it an unset variable of the shell?")
        if argument.kind is int:
            try:
                int(value)
            except ValueError:
                raise UsageError(f"{shown} takes a whole number, not {value!r}") from None

    def _check_complete(self, context: ParserContext, seen: set[str | None]) -> None:
        if context is self.core:
            return
        command = self.collection[context.name]
        for parameter in command.argspec(command.body).parameters.values():
            if parameter.default is parameter.empty and parameter.name not in seen:
                argument = context.args[parameter.name]
                shown = placeholder(argument) if argument.positional else option(argument)
                raise UsageError(
                    f"{context.name} needs {shown}", f"./run --help {context.name} shows how to use it"
                )

    def _no_option(self, flag: str, context: ParserContext) -> NoReturn:
        shown = ["--help", "--debug", *(("--list", "--version") if context is self.core else ())]
        near = did_you_mean(flag, [*context.flags, *context.inverse_flags, *shown])
        if context is self.core:
            raise UsageError(f"no option {flag!r}{near}", "./run --help shows all options")
        hint = f"./run --help {context.name} shows how to use it"
        raise UsageError(f"{context.name} has no option {flag!r}{near}", hint)


def flagged(context: ParserContext, flag: str) -> Argument | None:
    """Return the argument that ``flag`` belongs to, if any."""
    return context.flags[flag] if flag in context.flags else None  # noqa: SIM401  # get() knows no short names


def no_command(word: str, collection: Collection) -> NoReturn:
    """Raise a UsageError: ``word`` stands where a command is expected."""
    if word in collection.collections:
        raise UsageError(f"{word!r} is a group of commands", f"./run --list {word} shows its commands")
    names = list(collection.task_names)
    raise UsageError(f"no command {word!r}{did_you_mean(word, names)}", "./run --list shows all commands")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return the end of an error message: the names in ``known`` that resemble ``word``, or nothing."""
    from difflib import get_close_matches  # imported late: only a mistake needs it

    near = [name for name in known if name.endswith(f".{word}")] or get_close_matches(word, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def placeholder(argument: Argument) -> str:
    """Format a positional argument for help: ``LAB``, or ``[LAB]`` if it is optional."""
    word = argument.names[0].upper()
    return word if argument.default is None else f"[{word}]"


def option(argument: Argument) -> str:
    """Format an option for help: ``--json``, ``--no-apply``, ``--name=NAME``."""
    name = argument.names[0]
    if argument.takes_value:
        return f"--{name}={'N' if argument.kind is int else name.upper()}"
    return f"--no-{name}" if argument.default is True else f"--{name}"


def names_in(given: Sequence[str] | None) -> list[str]:
    """Split options that may each hold several names, separated by commas or blanks.

    The path of an existing file is one name; so is that of a folder if it has a slash.
    """
    names = list[str]()
    for text in given or ():
        whole = Path(text).is_file() or ("/" in text and Path(text).exists())
        names += [text] if whole else text.replace(",", " ").split()
    return names


def path_in(text: str) -> Path | None:
    """Read the path that was given to an option; None for an empty ``text``."""
    return Path(text) if text else None


def number(option: str, text: str) -> int | None:
    """Read the number that was given to ``option``; None for an empty ``text``. Raises UsageError."""
    if not text:
        return None
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"{option} takes a number, not {text!r}", f"{option} 42")
    return int(text)
