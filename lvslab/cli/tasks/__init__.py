"""The commands. Each parses its arguments, calls one function, and prints the result."""

from invoke import Collection

from lvslab.cli.tasks import howto, kernel, lab, matrix, project, snapshot, toolchain

ns: Collection = project.group
for module in (lab, howto, matrix, snapshot, kernel, toolchain):
    ns.add_collection(module.group)
