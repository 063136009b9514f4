"""The plugin's options for several kernels, in a pytest of its own, with labs that are only told of."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from lvslab.kernel import store

pytest_plugins = ["pytester"]

# In place of the plugin's labs: they are told of in a file, which workers of xdist share.
CONFTEST = """
from contextlib import contextmanager
from pathlib import Path

import pytest
from lvslab.cluster import cluster
from tests.unit.fake_cluster import FakeCluster, lab_in

LOG = Path(__file__).with_name("log")


@contextmanager
def booted(folder, *, name, spec, **_):
    with LOG.open("a") as log:
        print(f"{folder.name} {spec.kernel or None} {spec.ipvsadm or None}", file=log)
    versions = {"kernel": f"{spec.kernel}-exactly", "ipvsadm": spec.ipvsadm or "1.31"}
    with FakeCluster(lab_in(folder), evidence=folder, versions=versions, spec=spec) as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def told():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "booted", booted)
        yield
"""
TESTS = """
import pytest


def test_one(lab):
    pass


@pytest.mark.parametrize("method", ["PASV", "PORT"])
def test_two(lab, method):
    pass


def test_of_no_lab():
    pass
"""
ONCE = ["-p", "no:cacheprovider", "-p", "no:unraisableexception", "--junit-xml=junit.xml"]


@pytest.fixture(autouse=True)
def labs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeconftest(CONFTEST)
    for name in ("a", "b"):
        pytester.mkdir(name).joinpath(f"test_{name}.py").write_text(TESTS)


def booted(pytester: pytest.Pytester) -> list[str]:
    return (pytester.path / "log").read_text().splitlines()


def properties(pytester: pytest.Pytester) -> dict[str, dict[str, str]]:
    """Those of each case, by its module and name."""
    cases = ElementTree.parse(pytester.path / "junit.xml").iter("testcase")
    return {
        f"{case.get('classname')} {case.get('name')}": {
            str(each.get("name")): str(each.get("value")) for each in case.iter("property")
        }
        for case in cases
    }


def test_each_lab_is_booted_once_for_each_kernel(pytester: pytest.Pytester) -> None:
    options = ("--lvs-kernel=debian-6.1", "--lvs-kernel=debian-5.10", "--lvs-ipvsadm=1.29")
    result = pytester.runpytest_subprocess(*ONCE, "-v", *options)
    result.assert_outcomes(passed=2 * (2 * 3 + 1))
    assert booted(pytester) == [
        "a debian-6.1 1.29",
        "a debian-5.10 1.29",
        "b debian-6.1 1.29",
        "b debian-5.10 1.29",
    ]
    told = properties(pytester)
    assert told["a.test_a test_two[debian-5.10-PORT]"] == {
        "lvs-kernel": "debian-5.10",
        "kernel-version": "debian-5.10-exactly",
        "ipvsadm-version": "1.29",
    }
    assert told["a.test_a test_of_no_lab"] == {}


def test_a_test_whose_lab_does_not_come_up_has_its_kernel_all_the_same(pytester: pytest.Pytester) -> None:
    module = pytester.path / "a" / "test_a.py"
    module.write_text(
        "import pytest\n"
        "@pytest.fixture\ndef lab(lvs_kernel):\n    raise RuntimeError('it hangs')\n"
        "def test_one(lab):\n    pass\n"
        "@pytest.mark.skip\ndef test_two(lab):\n    pass\n"
    )
    result = pytester.runpytest_subprocess(*ONCE, "a", "--lvs-kernel=debian-6.1")
    result.assert_outcomes(errors=1, skipped=1)
    assert [*properties(pytester).values()] == [{"lvs-kernel": "debian-6.1"}] * 2


def test_workers_share_no_lab(pytester: pytest.Pytester) -> None:
    options = ("--lvs-kernel=debian-6.1", "--lvs-kernel=debian-5.10", "-n2")
    pytester.runpytest_subprocess(*ONCE, *options).assert_outcomes(passed=14)
    assert sorted(booted(pytester)) == [f"{lab} debian-{v} None" for lab in "ab" for v in ("5.10", "6.1")]
    versions = [each.get("kernel-version") for each in properties(pytester).values()]
    assert sorted(map(str, versions)) == [
        *["None"] * 2,
        *["debian-5.10-exactly"] * 6,
        *["debian-6.1-exactly"] * 6,
    ]


def test_without_the_options_all_is_as_ever(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*ONCE, "-v", "a")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["a/test_a.py::test_two?PORT? PASSED*"])
    assert booted(pytester) == ["a None None"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lab=mine", "--lvs-kernel=debian-6.1"), "*cannot be changed: leave out --lvs-kernel"),
        (("--lab=mine", "--lvs-ipvsadm=1.29"), "*cannot be changed: leave out --lvs-ipvsadm"),
        (("--lvs-kernel=debian-6.2",), "*no kernel 'debian-6.2'*"),
        (("--lvs-kernel=debian-6.1",) * 2, "*names a kernel twice: debian-6.1, debian-6.1"),
        (("--lvs-ipvsadm=9.9",), "*no ipvsadm '9.9'*"),
    ],
)
def test_a_mistake_is_one_error(pytester: pytest.Pytester, options: tuple[str, ...], said: str) -> None:
    result = pytester.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert "Traceback" not in result.stderr.str()


def test_a_kernel_by_its_path_is_called_by_its_files_name(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LVSLAB_CACHE", str(tmp_path))
    assert store.installed() == ()
    image = pytester.path / "vmlinuz-x"
    head = bytearray(0x1000)
    head[0x1FE:0x200], head[0x202:0x206], head[0x20E:0x210] = b"\x55\xaa", b"HdrS", b"\0\2"
    head[0x400:0x406] = b"6.1.9\0"
    image.write_bytes(bytes(head))
    result = pytester.runpytest_subprocess(*ONCE, "-v", "a", f"--lvs-kernel={image}")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["a/test_a.py::test_one?vmlinuz-x? PASSED*"])
    assert booted(pytester) == [f"a {image} None"]
