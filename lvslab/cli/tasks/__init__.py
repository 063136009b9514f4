"""The commands: each parses its arguments, calls one function, and prints the result."""

from invoke import Collection

from lvslab.cli.tasks.howto import howtos
from lvslab.cli.tasks.kernel import kernels, toolchains
from lvslab.cli.tasks.lab import LABS
from lvslab.cli.tasks.matrix import matrices
from lvslab.cli.tasks.project import bench, doctor, lint, test
from lvslab.cli.tasks.snapshot import SNAPSHOTS

ns = Collection(LABS, howtos, matrices, SNAPSHOTS, kernels, toolchains, doctor, test, lint, bench)
