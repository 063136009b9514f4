"""Steps of a how-to: the commands of ``howto.md``, the node of each, and its expected end.

A fenced block is typed if its info string names a node: ```` ```sh node=director ````. The other attributes:

=====================  ====================================================================================
``exit=N``             the exit status that the command must have; 0 where none is given
``prints="text"``      text that must occur in the output (of a known failure: in the output of the failure)
``known-failure="R"``  the command must fail, for the reason R
``known-failure-on=``  on which versions it fails, such as ``"iptables>=1.4.3"``; everywhere if not given
``timeout=SECONDS``    how long the command may take; 30 where none is given
=====================  ====================================================================================
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lvslab.errors import LabFileError, LvsLabError
from lvslab.lab.files import read_text, suggest
from lvslab.run import run

if TYPE_CHECKING:
    from markdown_it.token import Token

Wrong = Callable[[str, str | None], LabFileError]
"""Makes the error for one line of a how-to from message and hint."""

HOWTO_FILE = "howto.md"
PROGRAMS = ("kernel", "iptables", "ipvsadm")
DEFAULT_TIMEOUT = 30.0

_ATTRIBUTES = ("node", "exit", "prints", "known-failure", "known-failure-on", "timeout")
# These speak of the end of one command, so the block that carries one holds one command.
_OF_ONE_STEP = ("exit", "prints", "known-failure", "known-failure-on")
# A plain command: words, variables and redirections, and quotes with nothing special in them.
_PLAIN = re.compile(r"""(?:[\w./:=@%+,\- >]|\$\w|"[\w./:=@%+,\- ]*"|'[^'\n]*')+""", re.ASCII)
# Words that open, continue or close a compound command.
_COMPOUND = re.compile(
    r"\s*(?:if|then|else|elif|fi|for|while|until|do|done|case|esac|select|function|time|coproc)\b"
)


@dataclass(frozen=True)
class Versions:
    """Versions of one of PROGRAMS, with a specifier such as ``>=2.6,<5.10``."""

    program: str
    specifier: str

    def hold(self, versions: Mapping[str, str]) -> bool:
        """Return whether ``versions`` (version strings by program) match.

        The first number in a version string counts: 6.1.0 in ``6.1.0-49-cloud-amd64``. Raises LvsLabError if
        ``versions`` has no number for the program.
        """
        from packaging.specifiers import SpecifierSet
        from packaging.version import Version

        number = re.search(r"\d+(?:\.\d+)*", versions.get(self.program, ""))
        if not number:
            raise LvsLabError(
                f"the how-to asks for the version of {self.program}, and it is not known",
                f"a step has known-failure-on={str(self)!r}",
            )
        return SpecifierSet(self.specifier).contains(Version(number[0]))

    def __str__(self) -> str:
        return f"{self.program}{self.specifier}"


@dataclass(frozen=True)
class Step:
    """Command of a how-to. ``number`` counts the steps of all nodes, from 1.

    ``command`` may hold several lines; ``line`` is the line of ``howto.md`` that has the first one.
    ``exit`` is the expected exit status, ``timeout`` is in seconds.
    """

    number: int
    node: str
    command: str
    line: int
    exit: int = 0
    prints: str | None = None
    known_failure: str | None = None
    known_failure_on: Versions | None = None
    timeout: float = DEFAULT_TIMEOUT

    def expects_failure(self, versions: Mapping[str, str]) -> bool:
        """Return whether the step must fail with these ``versions`` of PROGRAMS.

        Raises LvsLabError if the step depends on a version that is not known.
        """
        on = self.known_failure_on
        return self.known_failure is not None and (on is None or on.hold(versions))

    def complaint(self, status: int, output: str, versions: Mapping[str, str]) -> str | None:
        """Describe how ``status`` and ``output`` differ from the how-to, None if they do not."""
        fails = self.expects_failure(versions)
        if fails and status == 0:
            return f"expected to fail here ({self.known_failure}), but it ended with status 0"
        if not fails and status != self.exit:
            return f"ended with status {status}, and status {self.exit} was expected"
        # A text beside a known failure is the failure's own: where the step works, it is not printed.
        if self.prints and fails == (self.known_failure is not None) and self.prints not in output:
            return f"did not print {self.prints!r}"
        return None


def load(path: Path, nodes: Collection[str]) -> tuple[Step, ...]:
    """Load the steps of the how-to ``path``, in order; ``nodes`` are the lab's.

    Raises LabFileError for mistakes in the how-to, MachineError if bash, which parses it, is not installed.
    """
    from markdown_it import MarkdownIt

    steps: list[Step] = []
    for token in MarkdownIt("commonmark").parse(read_text(path)):
        _refuse_lost(path, token)
        if token.type != "fence" or token.map is None or "=" not in token.info:
            continue
        fence, end = token.map[0] + 1, token.map[1]
        wrong = partial(LabFileError, path, fence)
        attributes = _attributes(token.info, wrong)
        if (node := attributes["node"]) not in nodes:
            raise wrong(f"no node {node!r} in lab.yaml", suggest(node, nodes))
        lines = token.content.split("\n")[:-1]
        # A closed block has a fence above and one below its lines.
        if end - fence < len(lines) + 1:
            raise wrong("this block has no end", f"close it with a line {token.markup}")
        if not (commands := list(_commands(path, fence + 1, lines))):
            raise wrong("this block holds no command", "write one, or take out node=")
        alone = [name for name in _OF_ONE_STEP if name in attributes]
        if len(commands) > 1 and alone:
            raise wrong(
                f"{alone[0]}= stands on a block of {len(commands)} commands",
                "it speaks of the end of one command: give that command a block of its own",
            )
        expected = _expectations(attributes, wrong)
        for line, command in commands:
            steps.append(Step(len(steps) + 1, node, command, line, *expected))
    return tuple(steps)


def _refuse_lost(path: Path, token: Token) -> None:
    """Raise LabFileError for a block that Markdown takes for text, HTML, or an example.

    Such a block would not be typed, and nothing would say so.
    """
    if token.map is None or (token.type == "html_block" and token.content.lstrip().startswith("<!--")):
        return
    if token.type in ("html_block", "code_block"):
        block = r"\s*(`{3,}|~{3,}).*\bnode=\w"
        what = "HTML" if token.type == "html_block" else "indented text"
        message = f"Markdown takes this block for {what}, so it is not typed"
        hint = (
            "leave an empty line before it, and indent it by less than four blanks; "
            "or, if it is an example, put it into a block of its own that begins with ~~~~"
        )
    elif token.type == "inline":
        block = r"`{3,}[^`]*\bnode=.*`"
        message = "a backtick stands in the first line of a block, so Markdown takes it for no block"
        hint = "take it out, or begin and end the block with ~~~"
    else:
        return
    for line, text in enumerate(token.content.split("\n"), token.map[0] + 1):
        if re.match(block, text):
            raise LabFileError(path, line, message, hint)


def _attributes(info: str, wrong: Wrong) -> dict[str, str]:
    """Parse the attributes of an info string; ``node`` is among them."""
    try:
        words = shlex.split(info)
    except ValueError:
        hint = 'a text with spaces is quoted: prints="a text"'
        raise wrong(f"a quotation mark has no partner: {info}", hint) from None
    # The first word is the language, unless it is an attribute.
    attributes: dict[str, str] = {}
    for word in words if "=" in words[0] else words[1:]:
        name, _, value = word.partition("=")
        if name not in _ATTRIBUTES:
            raise wrong(f"unknown attribute {name!r}", suggest(name, _ATTRIBUTES))
        if not value:
            raise wrong(f"the attribute {name!r} has no value", f"write {name}=VALUE")
        if name in attributes:
            raise wrong(f"{name}= stands here twice", "keep one of the two")
        attributes[name] = value
    if "node" not in attributes:
        message = f"{next(iter(attributes))}= stands on a block without node="
        raise wrong(message, "say on which node the block is typed: node=NAME")
    return attributes


def _expectations(
    attributes: Mapping[str, str], wrong: Wrong
) -> tuple[int, str | None, str | None, Versions | None, float]:
    """Expected end of the steps of a block: ``exit`` and the fields after it in Step."""
    failure, failure_on = attributes.get("known-failure"), attributes.get("known-failure-on")
    if failure_on and not failure:
        hint = 'say why the step fails there: known-failure="the reason"'
        raise wrong("known-failure-on= stands without known-failure=", hint)
    if failure and "exit" in attributes:
        hint = "a known failure may have any status but 0: take out exit="
        raise wrong("exit= and known-failure= exclude each other", hint)
    status = attributes.get("exit", "0")
    if not re.fullmatch("[0-9]{1,3}", status) or int(status) > 255:
        raise wrong(f"exit={status} is not an exit status", "a number from 0 to 255 is")
    try:
        timeout = float(attributes.get("timeout", DEFAULT_TIMEOUT))
    except ValueError:
        timeout = 0
    if timeout <= 0 or not math.isfinite(timeout):
        hint = "it is a number of seconds, such as 30"
        raise wrong(f"timeout={attributes['timeout']} is not a time", hint)
    versions = _versions(failure_on, wrong) if failure_on else None
    return int(status), attributes.get("prints"), failure, versions, timeout


def _versions(text: str, wrong: Wrong) -> Versions:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    program = re.split(r"[^\w-]", text, maxsplit=1)[0]
    specifier = text[len(program) :]
    if program not in PROGRAMS:
        raise wrong(f"no version is known of {program!r}", suggest(program, PROGRAMS))
    with suppress(InvalidSpecifier):
        if specifier:
            return Versions(program, str(SpecifierSet(specifier)))
    hint = 'it is written like "iptables>=1.4.3" or "kernel>=2.6,<5.10"'
    raise wrong(f"known-failure-on={text!r} names no versions", hint)


def _commands(path: Path, first: int, lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each complete command of a block with its line; the block begins at ``first``."""
    begun, pending = 0, ""
    for number, line in enumerate(lines, first):
        if not pending and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begun, pending = (begun, f"{pending}\n{line}") if pending else (number, line)
        if _is_complete(pending, partial(LabFileError, path, begun)):
            yield begun, pending.strip()
            pending = ""
    if pending:
        message = f"the block ends inside a command: {pending.splitlines()[0].strip()}"
        hint = "close its quotation mark, here-document, loop or condition, or take out the last backslash"
        raise LabFileError(path, begun, message, hint)


def _is_complete(command: str, wrong: Wrong) -> bool:
    """Return whether ``command`` is complete, so that a shell would not ask for another line."""
    if _PLAIN.fullmatch(command) and not _COMPOUND.match(command):
        return True
    # bash ignores a backslash at the end of its input; an interactive shell waits for the next line.
    if (len(command) - len(command.rstrip("\\"))) % 2:
        return False
    done = run(["bash", "-n"], check=False, input=command.encode() + b"\n", timeout=10, env={"LC_ALL": "C"})
    said = done.stderr.decode(errors="replace")
    # A here-document without its end is a warning only, with status 0.
    if "unexpected end of file" in said or "unexpected EOF" in said or "delimited by end-of-file" in said:
        return False
    if done.returncode == 0:
        return True
    # bash's own first sentence, without its name and the line, which it counts from the command's start.
    reason = re.sub(r"^bash: (line \d+: )?", "", said.partition("\n")[0])
    raise wrong(f"the shell cannot read this command: {command.splitlines()[0].strip()}", reason)
