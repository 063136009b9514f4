from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invoke import Collection

from lvslab.cli.program import LabProgram
from lvslab.cli.tasks import matrix as tasks
from lvslab.cli.text import compare as text_of
from lvslab.errors import UsageError
from lvslab.matrix.compare.comparison import KINDS, Change, Comparison, compare, kind_of
from lvslab.matrix.compare.factors import Observed, differing, likeness
from lvslab.matrix.reading import Kept
from lvslab.matrix.results import OUTCOMES, Case, Cell, Result, Run
from lvslab.outcome import Outcome, worst

MACHINE = {"qemu": "7.2", "kernel": "6.1.0-50", "lvslab": "0.1.0"}


def tried(
    kernel: str = "6.12",
    ipvsadm: str = "1.31",
    lab: str = "web-nat",
    *,
    checks: Mapping[str, str] | None = None,
    sums: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    **more: Any,
) -> Result:
    """A cell with the check "table", which passed, unless told otherwise; each kernel and lab has checksums
    that are its name."""
    found: Mapping[str, str] = {"table": "passed"} if checks is None else checks
    cases = tuple(
        Case(
            name=name, verdict=verdict, seconds=0, message="" if verdict == "passed" else f"{name} is wrong"
        )
        for name, verdict in found.items()
    )
    about = {
        "cell": Cell(lab=lab, kernel=kernel, ipvsadm=ipvsadm),
        "verdict": worst(found.values()),
        "cases": cases,
        "versions": {"kernel": kernel, "ipvsadm": ipvsadm, **(versions or {})},
        "checksums": {
            "kernel": kernel,
            "source": kernel,
            "lab": lab,
            "lvslab": "a",
            "image": kernel + ipvsadm,
            **(sums or {}),
        },
        "accelerator": "tcg",
    }
    return Result.model_validate(about | more)


def run(*results: Result, machine: Mapping[str, str] = MACHINE) -> Kept:
    cells = tuple(result.cell for result in results)
    return Kept(Run(begun="", cells=cells, results=results, machine=dict(machine)), Path("/runs/a"))


BAD: dict[str, str] = {"table": "failed"}
REBUILT = {"sums": {"kernel": "rebuilt", "image": "rebuilt"}}


def only(found: Comparison) -> Change:
    (change,) = found.changes
    return change


def cause(old: Kept, new: Kept) -> tuple[tuple[str, ...], str]:
    """What the first check that got worse is of."""
    change = next(change for change in compare(old, new).changes if change.kind == "worse")
    assert change.cause is not None
    return change.cause.of, change.cause.why


# --- what changed -----------------------------------------------------------------------------------------


def test_nothing_changed() -> None:
    found = compare(run(tried(), tried("2.6.32")), run(tried("2.6.32"), tried()))
    assert (found.changes, found.cells, found.checks, found.exit_code) == ((), 2, 2, 0)
    assert "nothing changed" in text_of.compared(found)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("passed", "failed", "worse"),
        ("passed", "expected failure", "worse"),
        ("passed", "unexpectedly passed", "worse"),
        ("passed", "skipped", "worse"),
        ("passed", "error", "worse"),
        ("skipped", "failed", "worse"),
        ("expected failure", "failed", "worse"),
        ("failed", "error", "worse"),
        ("error", "failed", "worse"),
        ("error", "passed", "better"),
        ("error", "expected failure", "better"),
        ("failed", "passed", "better"),
        ("failed", "expected failure", "better"),
        ("expected failure", "unexpectedly passed", "better"),
        ("failed", "skipped", "gone"),
        ("error", "skipped", "gone"),
        ("skipped", "passed", "new"),
        ("skipped", "expected failure", "new"),
    ],
)
def test_kinds(old: str, new: str, kind: str) -> None:
    assert kind_of(Outcome(old), Outcome(new)) == kind
    assert kind_of(Outcome(old), Outcome(old)) is None


def test_checks_that_got_worse_better_new_and_gone() -> None:
    before = tried(checks={"a": "passed", "b": "failed", "c": "passed"})
    after = tried(checks={"a": "failed", "b": "passed", "d": "passed"}, **REBUILT)
    found = compare(run(before), run(after))
    assert [(change.kind, change.check, change.old, change.new) for change in found.changes] == [
        ("worse", "a", "passed", "failed"),
        ("better", "b", "failed", "passed"),
        ("new", "d", "", "passed"),
        ("gone", "c", "passed", ""),
    ]
    assert found.exit_code == 1
    assert found.counts == {"worse": 1, "better": 1, "flaky": 0, "new": 1, "gone": 1, "not done": 0}
    text = text_of.compared(found)
    assert (
        "1 got worse\n  web-nat a: passed -> failed\n    on: 6.12 with ipvsadm 1.31\n    a is wrong" in text
    )
    assert "before: b is wrong" in text


def test_cells_that_are_new_gone_and_flaky() -> None:
    old = run(tried(), tried("2.6.32"))
    new = run(tried(flaky=True, attempts=2, error="it hangs"), tried("5.10"), tried("5.15"))
    found = compare(old, new)
    assert [(change.kind, change.cell.kernel, change.check) for change in found.changes] == [
        ("flaky", "6.12", ""),
        ("new", "5.10", ""),
        ("new", "5.15", ""),
        ("gone", "2.6.32", ""),
    ]
    assert found.exit_code == 0
    flaky = found.changes[0]
    assert flaky.message == "it hangs"
    assert flaky.cause is not None
    assert flaky.cause.of == ()


def test_a_lab_that_breaks_is_one_change_and_not_one_for_each_check() -> None:
    broken = tried(checks={}, error="director did not come up", sums={"lab": "edited"})
    change = only(compare(run(tried()), run(broken)))
    assert (change.kind, change.check, change.message) == ("worse", "", "director did not come up")
    assert change.cause is not None
    assert change.cause.of == ("lab",)


def test_a_kernel_in_place_of_another_is_compared_with_it() -> None:
    old = run(tried("6.12"), tried("2.6.32"), tried("2.6.32", lab="many"))
    new = run(tried("/boot/bzImage", checks=BAD), tried("2.6.32"), tried("2.6.32", lab="many"))
    found = compare(old, new)
    assert found.replaced == {"kernel": ("6.12", "/boot/bzImage")}
    change = only(found)
    assert (change.before.kernel, change.cell.kernel) == ("6.12", "/boot/bzImage")
    assert change.cause is not None
    assert change.cause.of == ("kernel",)
    assert "kernel /boot/bzImage is compared with 6.12" in text_of.compared(found)


def test_tests_of_the_same_name_are_told_apart() -> None:
    twice = (Case(name="same", verdict="passed", seconds=0), Case(name="same", verdict="failed", seconds=0))
    before = tried(cases=twice)
    after = tried(cases=(twice[0], twice[0]))
    assert only(compare(run(before), run(after))).check == "same (2)"


# --- what it is of ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "machine", "of", "why"),
    [
        ({"sums": {"source": "b", "image": "b"}}, {}, "kernel", "(checksum of source 6.12, now b)"),
        (REBUILT, {}, "kernel", "only this differs: kernel (checksum 6.12, now rebuilt)"),
        ({"versions": {"kernel": "6.12.9"}}, {}, "kernel", "kernel 6.12, now 6.12.9"),
        ({"versions": {"ipvsadm": "1.31-2"}}, {}, "ipvsadm", "ipvsadm 1.31, now 1.31-2"),
        ({"sums": {"lab": "edited"}}, {}, "lab", "lab (checksum web-nat, now edited)"),
        ({"sums": {"lvslab": "b"}}, {}, "lvslab", "lvslab (checksum a, now b)"),
        ({"sums": {"image": "b"}}, {}, "guest's image", "guest's image (checksum of image"),
        ({"accelerator": "kvm"}, {}, "accelerator", "accelerator tcg, now kvm"),
        ({}, {"qemu": "8.0"}, "QEMU", "QEMU 7.2, now 8.0"),
        ({}, {"kernel": "6.12"}, "host's kernel", "host's kernel 6.1.0-50, now 6.12"),
    ],
)
def test_what_alone_differs_is_the_cause(
    changed: dict[str, Any], machine: dict[str, str], of: str, why: str
) -> None:
    found = cause(run(tried()), run(tried(checks=BAD, **changed), machine=MACHINE | machine))
    assert found[0] == (of,)
    assert why in found[1]


def test_nothing_differs() -> None:
    of, why = cause(run(tried()), run(tried(checks=BAD, seed=5)))
    assert (of, "chance" in why) == ((), True)


def test_several_that_differ_cannot_be_told_apart() -> None:
    new = tried(checks=BAD, sums={"kernel": "rebuilt", "lab": "edited"})
    of, why = cause(run(tried()), run(new))
    assert of == ("kernel", "lab")
    assert (
        "cannot be told apart: kernel (checksum 6.12, now rebuilt), lab (checksum web-nat, now edited)"
        in why
    )


def test_another_kernel_that_passes_with_the_new_ipvsadm_clears_it() -> None:
    new_ipvsadm = {"ipvsadm": "1.31-2"}
    old = run(tried(), tried("2.6.32"))
    new = run(
        tried(checks=BAD, versions=new_ipvsadm, **REBUILT),
        tried("2.6.32", versions=new_ipvsadm),
    )
    of, why = cause(old, new)
    assert of == ("kernel",)
    assert "with this ipvsadm it passes in web-nat on 2.6.32" in why


def test_the_new_kernel_with_another_ipvsadm_tells_which_it_is() -> None:
    old = run(tried(ipvsadm=""), tried(ipvsadm="1.29"))
    changed = {"versions": {"ipvsadm": "1.31-2"}, **REBUILT}
    passes = run(tried(ipvsadm="", checks=BAD, **changed), tried(ipvsadm="1.29", **REBUILT))
    of, why = cause(old, passes)
    assert of == ("ipvsadm",)
    assert "with this kernel it passes in web-nat on 6.12 with ipvsadm 1.29" in why
    # Where it fails with both, only the kernel differs in one of the two, and is it.
    fails = run(tried(ipvsadm="", checks=BAD, **changed), tried(ipvsadm="1.29", checks=BAD, **REBUILT))
    of, why = cause(old, fails)
    assert of == ("kernel",)
    assert "it did the same in web-nat on 6.12 with ipvsadm 1.29, where only the kernel differs" in why


def test_a_lab_that_makes_other_kernels_fail_too_is_the_cause() -> None:
    edited = {"lab": "edited"}
    old = run(tried(), tried("2.6.32"), tried("2.6.39"))
    new = run(
        tried(checks=BAD, sums={"kernel": "rebuilt", **edited}),
        tried("2.6.32", checks=BAD, sums=edited),
        tried("2.6.39", sums=edited),
    )
    of, why = cause(old, new)
    assert of == ("lab",)
    assert "it did the same in web-nat on 2.6.32 with ipvsadm 1.31, where only the lab differs" in why


def test_a_kernel_that_only_the_new_run_has_with_the_old_ipvsadm() -> None:
    old = run(tried("6.12", "1.30"))
    new = run(tried("6.13", "1.31", checks=BAD), tried("6.13", "1.30", checks=BAD))
    found = compare(old, new)
    # One cell of each run has a counterpart: the kernel was replaced, and ipvsadm came to it.
    assert found.replaced == {"kernel": ("6.12", "6.13")}
    change = next(change for change in found.changes if change.kind == "worse")
    assert change.cause is not None
    assert change.cause.of == ("kernel",)


def test_what_no_checksum_tells_is_not_taken_for_the_same() -> None:
    old, new = tried(), tried(checks=BAD, **REBUILT)
    bare = old.model_copy(update={"checksums": {"kernel": "6.12", "lvslab": "a"}})
    of, why = cause(run(bare), run(new))
    assert of == ("kernel", "lab")
    assert "lab (not known: no checksum)" in why
    same_kernel = tried(checks=BAD, sums={"lab": "x"})
    unknown = old.model_copy(update={"checksums": {**old.checksums, "lab": ""}})
    assert cause(run(unknown), run(same_kernel)) == (
        ("lab",),
        "no checksum tells whether the lab is the same, and nothing else differs",
    )


def test_a_bug_that_came_to_be_known_is_no_change_of_the_kernel() -> None:
    known: dict[str, str] = {"table": "expected failure"}
    change = only(
        compare(run(tried(checks=BAD)), run(tried(checks=known, sums={"lvslab": "b", "kernel": "c"})))
    )
    assert change.kind == "better"
    assert change.cause is not None
    assert change.cause.of == ("lvslab",)
    assert "the same as before" in change.cause.why


def test_a_bug_that_is_known_of_the_other_version_only() -> None:
    known: dict[str, str] = {"table": "expected failure"}
    change = only(compare(run(tried(checks=BAD)), run(tried(checks=known, **REBUILT))))
    assert change.cause is not None
    assert change.cause.of == ("kernel",)
    assert "or none: kernel (checksum 6.12, now rebuilt)" in change.cause.why


@pytest.mark.parametrize(("sums", "of"), [({"lab": "marked"}, ("lab",)), ({}, ())])
def test_a_check_that_is_judged_anew_by_its_lab_or_nobody_knows_why(
    sums: dict[str, str], of: tuple[str, ...]
) -> None:
    known: dict[str, str] = {"table": "expected failure"}
    change = only(compare(run(tried(checks=BAD)), run(tried(checks=known, sums=sums))))
    assert change.cause is not None
    assert change.cause.of == of
    assert change.cause.why.endswith(")" if of else "nothing that is recorded differs")


def test_a_run_that_has_not_ended() -> None:
    old = run(tried("6.1"), tried("2.6.32"))
    ended = run(tried("6.1"), tried("6.12"))
    cells = tuple(Cell(lab="web-nat", kernel=kernel, ipvsadm="1.31") for kernel in ("6.1", "2.6.32", "6.12"))
    new = Kept(ended.run.model_copy(update={"cells": cells}), ended.folder)
    found = compare(old, new)
    assert found.replaced == {} and found.left == 1
    assert [(change.kind, change.cell.kernel) for change in found.changes] == [
        ("new", "6.12"),
        ("not done", "2.6.32"),
    ]
    text = text_of.compared(found)
    assert "the new run has not come to its end: 1 of its cells are not done" in text
    assert "gone" not in text


def test_an_ipvsadm_of_ones_own_may_have_changed_and_kept_its_version() -> None:
    old, new = (Observed(run().run, tried(versions={"ipvsadm": "1.31+tree"}), "passes") for _ in "12")
    assert likeness("ipvsadm", old, new) == "unknown"
    assert differing(old, new) == ([], ["ipvsadm"])


# --- any two runs -----------------------------------------------------------------------------------------

RESULTS = st.lists(
    st.builds(
        lambda kernel, ipvsadm, lab, verdict, flaky, sums: tried(
            kernel, ipvsadm, lab, checks={"a": verdict, "b": "passed"}, flaky=flaky, sums=sums
        ),
        st.sampled_from(["6.1", "6.12", "x"]),
        st.sampled_from(["", "1.31"]),
        st.sampled_from(["web-nat", "many"]),
        st.sampled_from(OUTCOMES),
        st.booleans(),
        st.dictionaries(st.sampled_from(["kernel", "lab", "lvslab"]), st.sampled_from("12")),
    ),
    max_size=6,
    unique_by=lambda result: result.cell,
)


@settings(deadline=None)
@given(RESULTS, RESULTS)
def test_any_two_runs(old: list[Result], new: list[Result]) -> None:
    before, after = run(*old), run(*new)
    found = compare(before, after)
    assert compare(before, before).changes == ()
    assert found.exit_code == int(any(change.kind == "worse" for change in found.changes))
    document = json.loads(json.dumps(found.as_json()))
    assert sum(document["counts"].values()) == len(document["changes"])
    kinds = [KINDS.index(change["kind"]) for change in document["changes"]]
    assert kinds == sorted(kinds)
    for change in found.changes:
        assert (change.cause is None) == (not (change.old and change.new))
    assert text_of.compared(found).startswith(f"{found.cells} cells and ")


# --- commands ---------------------------------------------------------------------------------------------


def write(folder: Path, kept: Kept) -> str:
    folder.mkdir()
    (folder / "results.json").write_text(kept.run.model_dump_json())
    return str(folder)


def status(*words: str) -> int:
    return LabProgram(Collection(tasks.group)).status_of(["./run", *words])


def test_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = write(tmp_path / "good", run(tried())), write(tmp_path / "bad", run(tried(checks=BAD)))
    assert status("matrix.compare", good, bad) == 1
    assert "1 got worse" in capsys.readouterr().out
    assert status("matrix.compare", bad, good, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["better"] == 1
    assert status("matrix.report", good) == 0
    assert capsys.readouterr().out == f"1 cells: 1 passed\npage: {good}/report.html\n"
    assert status("matrix.report", bad, "--json", "--junit", str(tmp_path / "j.xml")) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "lvslab matrix 1"
    assert (tmp_path / "j.xml").exists()
    assert not (tmp_path / "bad/report.html").exists()
    capsys.readouterr()
    assert status("matrix.schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "lvslab matrix: results.json"
    monkeypatch.setenv("LVSLAB_STATE", str(tmp_path / "state"))
    (tmp_path / "state/matrices").mkdir(parents=True)
    write(tmp_path / "state/matrices/20261126-220000", run(tried()))
    assert status("matrix.compare", bad, "latest") == 0
    assert "1 got better" in capsys.readouterr().out


def test_bad_input_of_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "good", run(tried()))
    for words in (("matrix.report", "/nope"), ("matrix.compare", good, "/nope"), ("matrix.compare", good)):
        assert status(*words) == UsageError.exit_code
        assert capsys.readouterr().err.startswith("error: ")
