"""The log of the calls of ipvsadm on a director: where it is, and the commands that read and mark it.

``root/ipvsadm`` writes it. It stands before the program in guests and on Mininet directors.
"""

from __future__ import annotations

from pathlib import Path

PROGRAM = "/etc/lvslab/bin/ipvsadm"
"""The program itself. lvslab's own commands call it by the first folder of their PATH."""

FOLDER = "/etc/lvslab/calls"
"""The folder of the log and of the rules that calls of ``ipvsadm -R`` read."""

LOG = f"{FOLDER}/log"

NETWORK = "/etc/lvslab/network"
"""The node's own network namespace; calls in others are not logged."""

MARK = "\036"
"""The first character of each record, and of the name of each file in the output of READ."""

STEPS_ENDED = "steps ended"
"""The record behind the calls of the how-to's steps."""

SHORT = 4096
"""Bytes of each file that READ_SHORT prints."""


def _read(show: str) -> str:
    # Not every machine has awk.
    return f"""for file in {FOLDER}/*; do printf '\\036:%s\\n' "$file"; {show} "$file"; done"""


READ = _read("cat")
"""Shell command that prints all files of the folder, each behind its name."""

READ_SHORT = _read(f"head -c {SHORT}")
"""READ for files that are short; the rest of others is left out."""

READ_PACKED = f"{{ {READ}; }} | gzip -c | base64"
"""READ for long files, which are faster to pack than to send. It prints nothing useful without gzip."""

END_STEPS = f"printf '\\036{STEPS_ENDED}\\n' >>{LOG}"
"""Shell command that marks the end of the steps in the log."""


def script(shell: str = "/usr/bin/busybox sh") -> str:
    """Return the script that stands before ipvsadm, for ``shell``."""
    text = Path(__file__).with_name("root").joinpath("ipvsadm").read_text()
    return f"#!{shell}\n{text.partition(chr(10))[2]}"
