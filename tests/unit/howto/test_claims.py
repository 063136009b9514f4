"""The review of the tutorial: how a verdict comes about, and that the page is made of its sources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lvslab import paths
from lvslab.apply.verdicts import StepVerdict
from lvslab.check.pytest_run import Case, Checked
from lvslab.errors import LabFileError, StateError, UsageError
from lvslab.howto import claims as review
from lvslab.howto import page as show_review
from lvslab.howto import record
from lvslab.howto.claims import Check, Claims, Recorded
from lvslab.howto.results import OnKernel, Verified
from lvslab.howto.verify import Listeners
from lvslab.outcome import CLAIMS as WORDS
from lvslab.outcome import Outcome

CLAIMS = """
[[group]]
name = "old"
kernels = ["2.4", "2.6"]

[[group]]
name = "today"
kernels = ["6.1"]

[section]
1 = "the beginning"
"2.1" = "more | of it"

[[claim]]
section = "2.1"
says = "Later it works."
shown_by = ["probe#It works"]

[[claim]]
section = "1"
says = "It is needed."
remark = "It is not."
refuted_by = ["probe#Without it"]
passes = ["web::test_it"]

[[claim]]
section = "1"
says = "It was so."
read = {old = "yes"}
source = "a book"

[[claim]]
section = "2.1"
says = "It will be shown."
later = "other-lab"

[[claim]]
section = "2.1"
says = "Nobody knows."

[[claim]]
section = "2.1"
says = "The old one is bad."
about = ["old"]
untried = ["2.6"]
refuted_where_passes = ["web::test_it"]

[[claim]]
section = "2.1"
says = "It was so in one."
read = {"2.4" = "no", old = "yes", today = "yes"}
source = "a book"
"""
PROBE = """# Probe

## It works

```sh node=director
true
```

```sh node=director
works
```

## Without it

```sh node=client
without
```
"""


def step(number: int, line: int, command: str, verdict: str, **more: Any) -> dict[str, Any]:
    about = {"reason": "", "output": "", "status": 0, "node": "director"}
    return {"number": number, "line": line, "command": command, "verdict": verdict, **about, **more}


def run(works: str, without: str) -> dict[str, Any]:
    reason = "too old" if works == "expected failure" else ""
    steps = [
        step(1, 6, "true", "ok"),
        step(2, 10, "works", works, reason=reason, output="one\ntwo\n\x1b[1m"),
        step(3, 16, "without", without, node="client"),
    ]
    return {"versions": {"kernel": "2.4.37"}, "steps": steps}


RESULTS: dict[str, Any] = {
    "howtos": {
        "probe": {
            "sha256": review.checksum(PROBE),
            "kernels": {"2.4": run("expected failure", "expected failure"), "6.1": run("ok", "ok")},
        }
    },
    "checks": {"web": {"2.4": {"kernel": "2.4.37", "tests": {"test_it": "passed"}}}},
}


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    (tmp_path / "claims.toml").write_text(CLAIMS)
    return review.read_claims(tmp_path / "claims.toml")


@pytest.fixture
def recorded() -> Recorded:
    return Recorded(RESULTS, {"probe": PROBE})


def verdicts(claims: Claims, recorded: Recorded, says: str) -> list[str]:
    (claim,) = (claim for claim in claims.claims if claim.says == says)
    return [
        WORDS.word(review.holds(claim, group, kernel, recorded))
        for group in claims.groups
        for kernel in group.kernels
    ]


def test_what_steps_say(claims: Claims, recorded: Recorded) -> None:
    assert verdicts(claims, recorded, "Later it works.") == ["no", "not tried", "yes"]


def test_steps_that_speak_against_it_and_a_check(claims: Claims, recorded: Recorded) -> None:
    # On 2.4 both say yes; on 2.6 nothing was recorded; on 6.1 the steps are against it.
    assert verdicts(claims, recorded, "It is needed.") == ["yes", "not tried", "no"]


@pytest.mark.parametrize(
    ("outcome", "wanted"),
    [("passed", "yes"), ("failed", "no"), ("error", "no"), ("skipped", "yes"), ("", "yes")],
)
def test_what_a_check_says_beside_steps(claims: Claims, outcome: str, wanted: str) -> None:
    checks = {"web": {"2.4": {"tests": {"test_it": outcome} if outcome else {}}}}
    assert verdicts(claims, Recorded({**RESULTS, "checks": checks}, {"probe": PROBE}), "It is needed.")[
        0
    ] == (wanted)


@pytest.mark.parametrize(
    ("outcomes", "all_of_it", "one_of_it"),
    [
        ({"a": "passed", "b": "passed"}, "passed", "passed"),
        ({"a": "passed", "b": "skipped"}, "passed", "skipped"),
        ({"a": "failed", "b": "passed"}, "failed", "passed"),
        ({"a": "skipped", "b": "skipped"}, "skipped", "skipped"),
        ({"a": "passed"}, "passed", None),
    ],
)
def test_a_check_with_parameters(outcomes: dict[str, str], all_of_it: str, one_of_it: str | None) -> None:
    tests = {f"test_it[{parameter}]": outcome for parameter, outcome in outcomes.items()}
    checks = {"web": {"2.4": {"tests": {**tests, "test_it_too": "error"}}}}
    found = Recorded({**RESULTS, "checks": checks}, {})
    assert found.outcome(Check("web", "test_it", False), "2.4") == all_of_it
    assert found.outcome(Check("web", "test_it[b]", False), "2.4") == one_of_it


@pytest.mark.parametrize(("verdict", "wanted"), [("failed", "no"), ("not run", "not tried")])
def test_a_step_that_failed_or_was_not_run(claims: Claims, verdict: str, wanted: str) -> None:
    howtos = {"probe": {"kernels": {"2.4": run(verdict, "ok")}}}
    found = Recorded({**RESULTS, "howtos": howtos}, {"probe": PROBE})
    assert verdicts(claims, found, "Later it works.")[0] == wanted


def test_what_was_read_or_not_tried(claims: Claims, recorded: Recorded) -> None:
    assert verdicts(claims, recorded, "It was so.") == ["yes", "yes", "not tried"]
    assert verdicts(claims, recorded, "Nobody knows.") == ["not tried"] * 3


def test_a_check_alone_that_was_skipped(claims: Claims) -> None:
    checks = {"web": {"2.4": {"tests": {"test_it": "skipped"}}}}
    found = Recorded({**RESULTS, "checks": checks}, {"probe": PROBE})
    assert verdicts(claims, found, "The old one is bad.")[0] == "not tried"


def test_what_a_claim_is_about(claims: Claims, recorded: Recorded) -> None:
    assert verdicts(claims, recorded, "The old one is bad.") == ["no", "not tried", "-"]
    assert verdicts(claims, recorded, "It was so in one.") == ["no", "yes", "yes"]


def test_steps_belong_to_the_heading_above_them() -> None:
    assert review.under(PROBE, "It works") == range(3, 13)
    assert review.under(PROBE, "Without it") == range(13, 19)
    assert not review.under(PROBE, "no such heading")
    # What looks like one in a block is none.
    assert not review.under("```sh\n# It works\n```\n", "It works")


def test_the_page(claims: Claims, recorded: Recorded) -> None:
    text = show_review.document(claims, recorded)
    assert "| old | `2.4` | kernel 2.4.37 |\n| old | `2.6` | nothing yet |" in text
    overview = "| 1 | 1 | It is needed. | yes on 2.4; not tried on 2.6 | **no** |\n| 2 | 1 | It was so."
    assert overview in text
    assert "| 3 | 2.1 | Later it works. | **no** on 2.4; not tried on 2.6 | yes |" in text
    assert "## Section 2.1: more | of it\n\n**3. Later it works.**" in text
    assert "- From reading, not from a run: a book" in text
    assert "Not tried yet. The lab `other-lab` will show it." in text
    assert "[probe.md: It works](tutorial/probe.md#it-works):" in text
    assert "passed on 2.4; not recorded on 2.6, 6.1" in text
    evidence = (
        "  step 2, director# works\n"
        "    2.4: expected failure, too old\n"
        "      one\n"
        "      two\n"
        "      \\x1b[1m\n"
        "    2.6: not recorded\n"
    )
    assert evidence in text
    assert "whose steps refute it where they work" in text


def test_a_how_to_that_has_changed_is_noticed(recorded: Recorded) -> None:
    assert recorded.stale() == []
    assert Recorded(RESULTS, {"probe": PROBE + "\n"}).stale() == ["probe"]
    assert Recorded(RESULTS, {"new": PROBE}).stale() == ["new"]


def test_a_lab_that_has_changed_is_told_of(claims: Claims, recorded: Recorded) -> None:
    checks = {"web": {"2.4": {"sha256": "a"}, "2.6": {"sha256": "a"}, "6.1": {"sha256": "b"}}}
    results = {**recorded.results, "checks": checks}
    same = Recorded({**results, "checks": {"web": {"2.4": {"sha256": "a"}}}}, recorded.texts, {"web": "a"})
    assert same.changed() == []
    assert Recorded(results, recorded.texts, {"web": "a"}).changed() == ["web"]
    assert "Changed since their checks were recorded: web." in show_review.document(
        claims, Recorded(results, recorded.texts, {"web": "c"})
    )


def test_known_bugs_are_listed_where_a_claim_asks_for_them(claims: Claims, recorded: Recorded) -> None:
    group = review.Group("2.6", ("2.6.18", "2.6.39"))
    claim = replace(claims.claims[0], about=("2.6",), bugs=True)
    text = show_review.document(replace(claims, groups=(group,), claims=(claim,)), recorded)
    assert "  - `snat-ignored` (on 2.6.39): iptables does not change" in text
    assert "  - `hash-low-bits` (on all of them): sh and dh" in text
    assert "nq-weight-0" not in text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("shown_by", "shown_bye", "unknown key 'shown_bye' in the claim 'Later it works.'"),
        ("[section]", "[section", "this is not TOML"),
        ('source = "a book"', "", "'source'"),
        ('"web::test_it"', '"web"', "is not as it should be"),
    ],
)
def test_a_wrong_file_of_claims(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "claims.toml").write_text(CLAIMS.replace(old, new, 1))
    with pytest.raises(LabFileError) as caught:
        review.read_claims(tmp_path / "claims.toml")
    assert said in str(caught.value)


def wrong_references(claims: Claims, texts: Mapping[str, str], tests: Mapping[str, str]) -> Iterator[str]:
    """Yield the references of ``claims`` to headings, tests, sections, groups and kernels that do not exist.

    ``texts`` are the how-tos, ``tests`` the test modules of labs as text, by name.
    """
    for claim in claims.claims:
        if claim.section not in claims.sections:
            yield f"no section {claim.section}: {claim.says}"
        for step in claim.steps:
            if step.howto not in texts or not review.under(texts[step.howto], step.heading):
                yield f"no heading {step.heading!r} in {step.howto}.md"
        for check in claim.checks:
            if not re.search(rf"^def {re.escape(check.function)}\(", tests.get(check.lab, ""), re.MULTILINE):
                yield f"no test {check.test} in the lab {check.lab}"
        names = [*claims.kernels, *(group.name for group in claims.groups)]
        read = claim.reading.holds if claim.reading is not None else {}
        for name in (*read, *claim.about, *claim.untried):
            if name not in names:
                yield f"no group or kernel {name!r}: {claim.says}"


def test_references_that_lead_nowhere(claims: Claims, tmp_path: Path) -> None:
    tests = {"web": "def test_it(lab):\n"}
    assert [*wrong_references(claims, {"probe": PROBE}, tests)] == []
    text = CLAIMS.replace('about = ["old"]', 'about = ["odl"]')
    (tmp_path / "claims.toml").write_text(text)
    misspelt = review.read_claims(tmp_path / "claims.toml")
    found = wrong_references(misspelt, {"probe": PROBE}, tests)
    assert [*found] == ["no group or kernel 'odl': The old one is bad."]
    broken = PROBE.replace("## Without it", "## Without")
    assert [*wrong_references(claims, {"probe": broken}, {})] == [
        "no heading 'Without it' in probe.md",
        "no test test_it in the lab web",
        "no test test_it in the lab web",
    ]


# --- recording --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "docs/tutorial"
    folder.mkdir(parents=True)
    (folder / "claims.toml").write_text(CLAIMS)
    (folder / "probe.md").write_text(PROBE)
    monkeypatch.setattr(review, "folder", lambda: folder)
    monkeypatch.setattr(record.verify, "verify", verified)
    monkeypatch.setattr(record.commands, "verify", checked)
    return folder


def verified(file: str, *, kernels: tuple[str, ...], listeners: Listeners) -> Verified:
    steps = (
        StepVerdict(1, "director", 6, "true", Outcome.PASSED),
        StepVerdict(2, "director", 10, "works", Outcome.PASSED),
        StepVerdict(3, "client", 16, "without", Outcome.PASSED),
    )
    versions = {"kernel": "2.4.37"}
    return Verified(file, "web", (), tuple(OnKernel(k, versions, "tcg", "", 1.0, steps) for k in kernels))


class Up:
    kernel = "2.4.37"


class Done:
    up = Up()
    checked = Checked(
        "x",
        "junit.xml",
        (Case("test_it", Outcome.PASSED, 1.0, ""), Case("test_else", Outcome.FAILED, 1, "")),
        1,
    )


def checked(name: str, *, only: set[str], **_: Any) -> Done:
    assert (name, only) == ("web", {"test_it"})
    return Done()


def test_what_was_recorded_makes_the_page(folder: Path) -> None:
    with pytest.raises(StateError, match="not recorded: probe"):
        record.write()
    record.record("probe", ["2.4"], Listeners())
    record.record("", [], Listeners())
    results = review.read_results(folder / "results.json")
    assert list(results["howtos"]["probe"]["kernels"]) == ["2.4", "2.6", "6.1"]
    # Only the checks that a claim rests on.
    checksum = record._lab_checksum("web")
    assert results["checks"]["web"]["6.1"] == {
        "kernel": "2.4.37",
        "sha256": checksum,
        "tests": {"test_it": "passed"},
    }
    page = record.write()
    assert page == folder.parent / "tutorial-review.md"
    assert "| Later it works. | yes | yes |" in page.read_text()


def test_results_of_another_text_are_dropped(folder: Path) -> None:
    record.record("probe", ["2.4"], Listeners())
    (folder / "probe.md").write_text(PROBE + "\nmore\n")
    record.record("probe", ["6.1"], Listeners())
    results = review.read_results(folder / "results.json")
    assert list(results["howtos"]["probe"]["kernels"]) == ["6.1"]


def test_nothing_of_that_name_to_record(folder: Path) -> None:
    with pytest.raises(UsageError, match="no claim rests on 'prob'") as caught:
        record.record("prob", [], Listeners())
    assert "did you mean 'probe'?" in str(caught.value.hint)


def test_results_have_a_line_for_each_step() -> None:
    text = record.dumped(RESULTS)
    assert json.loads(text) == RESULTS
    assert sum('"verdict": "ok"' in line for line in text.splitlines()) == 4
    assert max(line.count('"verdict"') for line in text.splitlines()) == 1


# --- the real one -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Claims:
    return review.read_claims(review.folder() / review.CLAIMS)


def test_the_claims_refer_to_what_is_there(real: Claims) -> None:
    texts = record.recorded(real).texts
    modules = {lab: [*(paths.labs() / lab).glob("test_*.py")] for lab in real.labs}
    tests = {lab: "\n".join(file.read_text() for file in files) for lab, files in modules.items()}
    assert [*wrong_references(real, texts, tests)] == []


def test_the_page_is_what_is_made_of_claims_and_results(real: Claims) -> None:
    found = record.recorded(real)
    assert found.stale() == [], "./run howto.review --record"
    page = (review.folder().parent / review.REVIEW).read_text(encoding="utf-8")
    assert page == show_review.document(real, found), "./run howto.review"


def test_all_was_recorded_on_every_kernel(real: Claims) -> None:
    found = record.recorded(real)
    for name in real.howtos:
        assert set(found.results["howtos"][name]["kernels"]) >= set(real.kernels), name
    for name in real.labs:
        assert set(found.results["checks"][name]) >= set(real.kernels), name


def test_no_step_of_the_how_tos_failed(real: Claims) -> None:
    """One that fails is a claim of ours that is wrong."""
    howtos = record.recorded(real).results["howtos"]
    failed = [
        (name, kernel, step["number"])
        for name in real.howtos
        for kernel, run in howtos[name]["kernels"].items()
        for step in run["steps"]
        if step["verdict"] in ("failed", "not run")
    ]
    assert failed == []
