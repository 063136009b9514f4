"""The commands. Each parses its arguments, calls one function, and prints the result.

All are loaded for any of them, so these modules import only what help pages need. A command imports what it
calls in its function, and its text is imported on first use (``text.lab``); ``tests/unit/test_imports.py``
has the list.
"""

from invoke import Collection

from lvslab.cli.tasks import howto, kernel, lab, matrix, project, snapshot, toolchain

ns: Collection = project.group
for module in (lab, howto, matrix, snapshot, kernel, toolchain):
    ns.add_collection(module.group)
