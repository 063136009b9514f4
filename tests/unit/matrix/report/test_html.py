from __future__ import annotations

import json
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lvslab.apply.transcript import StepRecord, Transcript, printable
from lvslab.errors import UsageError
from lvslab.matrix import reading, results
from lvslab.matrix.reading import Kept
from lvslab.matrix.report import excerpts, suites, writer
from lvslab.matrix.report import html as report
from lvslab.matrix.results import OUTCOMES, Case, Cell, Result, Run
from lvslab.outcome import Outcome, worst
from lvslab.paths import PROJECT
from lvslab.report import junit

VOID = {"meta", "link", "input"}
TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "body",
    "header",
    "h1",
    "h2",
    "h3",
    "p",
    "time",
    "strong",
    "fieldset",
    "legend",
    "label",
    "input",
    "span",
    "b",
    "main",
    "section",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "a",
    "ul",
    "ol",
    "li",
    "small",
    "code",
    "details",
    "summary",
    "pre",
    "dl",
    "dt",
    "dd",
    "script",
}


class Page(HTMLParser):
    """A page that was read: elements are closed in the order in which they were opened, and are ours."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [a for name, a in self.seen if name == tag and attributes.items() <= a.items()]


def result(cell: Cell, *cases: Case, **more: object) -> Result:
    verdict = worst(case.verdict for case in cases)
    return Result.model_validate({"cell": cell, "verdict": verdict, "cases": cases, **more})


FAILED = Case(
    name="test_weights",
    verdict="failed",
    seconds=2,
    message="lab = <Testbed>\n\n    def test_weights(lab):\n>       check(lab)\n\n"
    "E   lvslab.errors.CheckFailed: real-server-2 <b>answered</b> 7 of 12 & \x1b[1m8\x1b[0m were expected\n"
    "E     its weight is 1",
)
PASSED = Case(name="test_table", verdict="passed", seconds=0.5)
SKIPPED = Case(name="test_ipv6", verdict="skipped", seconds=0, message="no IPv6: it came with 2.6.28")
KNOWN = Case(name="test_lc", verdict="expected failure", seconds=0, message="257", bug="lc-257")
GONE = Case(name="test_lc", verdict="unexpectedly passed", seconds=0, bug="lc-257")
OLD, NEW = Cell(lab="web-nat", kernel="2.4.37.11"), Cell(lab="web-nat", kernel="debian-6.12")
OTHER, BROKEN = Cell(lab="many", kernel="2.4.37.11"), Cell(lab="many", kernel="debian-6.12")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A run of a cell that failed, with evidence; one that passed the second time; one that broke; and one
    that is not done."""
    evidence = tmp_path / "cells/web nat#1"
    (evidence / "tests").mkdir(parents=True)
    with Transcript(evidence / "transcript.jsonl") as transcript:
        lines = "".join(f"line {number} of </pre><script>\n" for number in range(100))
        transcript.append(
            StepRecord(1, "director", 9, "cat 'big'", lines, 1, 0.1, "", Outcome.EXPECTED_FAILURE, "so")
        )
    (evidence / "console-director.log").write_bytes(b"".join(b"boot %d\r\n" % n for n in range(30_000)))
    (evidence / "tests/director.pcapng").write_bytes(b"packets")
    (evidence / "long.pcapng").write_bytes(bytes(100_000))
    first = result(
        OLD, PASSED, FAILED, SKIPPED, evidence="cells/web nat#1", seed=7, repeat="./run matrix.run --seed 7"
    )
    again = result(NEW, PASSED, SKIPPED, flaky=True, attempts=2, error="director: it hangs")
    broken = result(BROKEN, error="no answer\nfor 60 s", evidence="../elsewhere")
    run = Run(
        begun="2026-11-26T10:00:00+00:00",
        ended="2026-11-26T10:01:05+00:00",
        seed=7,
        machine={"qemu": "7.2"},
        cells=(OLD, NEW, OTHER, BROKEN),
        results=(first, again, broken),
    )
    (tmp_path / "results.json").write_text(run.model_dump_json())
    return reading.read(tmp_path)


def test_the_matrix_tells_verdicts_by_sign_and_by_word(kept: Kept) -> None:
    page = Page(report.html(kept))
    cells = [a for a in page.all("a") if "aria-label" in a]
    assert [a["aria-label"] for a in cells] == [
        "web-nat on 2.4.37.11: failed, 1 failed, 1 passed, 1 skipped",
        "many on 2.4.37.11: not done",
        "web-nat on debian-6.12: passed, 1 passed, 1 skipped, flaky: the lab broke the first time",
        "many on debian-6.12: error",
    ]
    # Each leads to its evidence, which is inside of what opens.
    assert {str(a["href"])[1:] for a in cells} == {
        div["id"] for div in page.all("div", **{"class": "evidence"})
    }
    text = "".join(page.text)
    for sign in ("✗", "…", "✓", "!", "↻"):
        assert sign in text
    assert "IPVS on 2 kernels" in text
    assert "took 1 min 5 s" in text
    assert re.search(r"1\s+failed", text)


def test_every_verdict_has_its_sign_its_meaning_and_its_colours() -> None:
    verdicts = [*OUTCOMES, report.NOT_DONE]
    assert list(report.SIGNS) == list(report.MEANINGS) == verdicts
    assert len({*report.SIGNS.values()}) == len(verdicts)
    style = (PROJECT / "lvslab/matrix/report/report.css").read_text()
    for verdict in verdicts:
        name = verdict.replace(" ", "-")
        assert f".v-{name} {{" in style
        assert f"#show-{name}:not(:checked)" in style


def test_a_page_needs_no_network(kept: Kept) -> None:
    text = report.html(kept)
    page = Page(text)
    assert [a["href"] for a in page.all("link")] == ["data:,"]
    assert not [a for _, a in page.seen if "src" in a]
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert str(policy).startswith("default-src 'none';")


def test_the_evidence_is_cut_and_says_where_the_whole_is(kept: Kept) -> None:
    text = "".join(Page(report.html(kept)).text)
    assert "line 0 of </pre><script>" in text
    assert "line 50 of" not in text
    assert "60 lines are left out: transcript.jsonl has all of it" in text
    assert "boot 29999\n" in text + "\n"
    assert "boot 29000" not in text
    assert "the last 40 lines: console-director.log has all of it" in text
    assert "expected failure, status 1, 0.10 s, howto.md:9: so" in text
    assert "./run matrix.run --seed 7" in text
    # Only what is below the run's folder is shown.
    assert "../elsewhere is not in the folder of the run" in text


def test_findings_give_the_line_that_says_why(kept: Kept) -> None:
    text = "".join(Page(report.html(kept)).text)
    said = "real-server-2 <b>answered</b> 7 of 12 & \\x1b[1m8\\x1b[0m were expected"
    assert text.count(said) == 3  # the finding, above the message, and in it
    assert report.reason_in("plain\nmore") == "plain"
    assert report.reason_in("") == ""


def test_names_that_are_paths_and_releases_of_kernels(tmp_path: Path) -> None:
    cell = Cell(lab="/srv/labs/mine", kernel="/boot/bzImage")
    found = result(cell, PASSED, versions={"kernel": "6.13.0-rc1"})
    page = Page(report.html(Kept(Run(begun="", cells=(cell, OLD), results=(found,)), tmp_path)))
    text = "".join(page.text)
    assert {"/srv/labs/mine", "/boot/bzImage"} <= {str(a.get("title")) for a in page.all("span")}
    assert "…/mine" in text
    assert "…/bzImage 6.13.0-rc1" in text


def test_small_captures_of_what_failed_are_in_the_page_and_others_are_linked(
    kept: Kept, tmp_path: Path
) -> None:
    page = Page(report.html(kept))
    (small,) = [a for a in page.all("a") if "download" in a]
    assert small == {
        "download": "director.pcapng",
        "href": "data:application/octet-stream;base64,cGFja2V0cw==",
    }
    links = [str(a["href"]) for a in page.all("a") if str(a["href"]).startswith("cells")]
    assert "cells/web%20nat%231/long.pcapng" in links
    assert all((tmp_path / unquote(link)).is_file() for link in links)
    elsewhere = tmp_path / "pages"
    links = [str(a["href"]) for a in Page(report.html(kept, elsewhere)).all("a")]
    assert "../cells/web%20nat%231/long.pcapng" in links


def test_evidence_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell/transcript.jsonl").write_text("{}\n")
    (tmp_path / "cell/link.log").symlink_to("/etc/hostname")
    found = excerpts.collect(tmp_path, "cell", console_lines=5, embed=0)
    assert "not an entry of a transcript" in found.steps_left_out
    assert [file.name for file in found.files] == ["transcript.jsonl"]
    assert "not there any more" in excerpts.collect(tmp_path, "gone", console_lines=5, embed=0).missing


def test_long_lines_and_texts() -> None:
    cut = excerpts.shortened("a" * 1000 + "\n" + "b\n" * 9, 4, "the log")
    assert cut.text == f"{'a' * 400} [...]\nb\n[... 6 lines ...]\nb\nb"
    assert (
        cut.left_out == "6 lines are left out and lines are cut after 400 characters: the log has all of it"
    )
    assert excerpts.shortened("a\nb", 4, "the log") == excerpts.Cut("a\nb")


def test_a_matrix_of_320_cells_is_a_page_of_some_megabytes(tmp_path: Path) -> None:
    cells = [
        Cell(lab=f"lab-{lab}", kernel=f"6.{kernel}", ipvsadm=ipvsadm)
        for kernel in range(20)
        for lab in range(8)
        for ipvsadm in ("1.31", "1.29")
    ]
    cases = [Case(name=f"test_of_a_scheduler[{n}]", verdict="passed", seconds=1) for n in range(40)]
    run = Run(begun="", cells=tuple(cells), results=tuple(result(cell, *cases) for cell in cells))
    text = report.html(Kept(run, tmp_path))
    assert len(text.encode()) < 6 << 20
    page = Page(text)
    assert len([a for a in page.all("a") if "aria-label" in a]) == 320
    assert len(page.all("th", scope="row")) == 40


# --- JUnit XML --------------------------------------------------------------------------------------------


def test_junit(kept: Kept) -> None:
    root = ElementTree.fromstring(junit.document(suites.report(kept.run)))
    keys = ("name", "tests", "failures", "errors", "skipped")
    assert [[suite.get(key) for key in keys] for suite in root] == [
        ["web-nat on 2.4.37.11", "3", "1", "0", "1"],
        ["web-nat on debian-6.12", "2", "0", "0", "1"],
        ["many on 2.4.37.11", "1", "0", "0", "1"],
        ["many on debian-6.12", "1", "0", "1", "0"],
    ]
    assert [root.get(key) for key in keys[1:]] == ["7", "1", "1", "3"]
    failure = root[0].find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "failed"
    assert "\\x1b[1m8" in str(failure.text)
    about = {each.get("name"): each.get("value") for each in root[0].iter("property")}
    assert about["seed"] == "7"
    assert about["machine-qemu"] == "7.2"
    error = root[3].find("testcase/error")
    assert error is not None
    assert (error.get("message"), error.text) == ("no answer", "no answer\nfor 60 s")
    assert [each.get("value") for each in root[1].iter("property") if each.get("name") == "first-error"] == [
        "director: it hangs"
    ]


def test_known_bugs_in_junit() -> None:
    run = Run(begun="", cells=(OLD, NEW), results=(result(OLD, KNOWN), result(NEW, GONE)))
    old, new = ElementTree.fromstring(junit.document(suites.report(run)))
    skipped, failure = old.find("testcase/skipped"), new.find("testcase/failure")
    assert skipped is not None
    assert (skipped.get("type"), skipped.get("message")) == ("expected failure", "lc-257: 257")
    assert failure is not None
    assert failure.get("type") == "unexpectedly passed"


# --- any run ----------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["", "<script>alert(1)</script>", "\x1b[31mred\x00", "a\r\nb\rc", '"><b>&amp;', "]]>", "\ufffe"]
    ),
)
CELLS = st.builds(Cell, lab=TEXT, kernel=TEXT, ipvsadm=TEXT)
SECONDS = st.floats(0, 1e6)
CASES = st.builds(
    Case, name=TEXT, verdict=st.sampled_from(OUTCOMES), seconds=SECONDS, message=TEXT, bug=TEXT
)
WORDS = st.dictionaries(TEXT, TEXT, max_size=3)
RESULTS = st.builds(
    Result,
    cell=CELLS,
    verdict=st.sampled_from(OUTCOMES),
    cases=st.lists(CASES, max_size=3).map(tuple),
    error=TEXT,
    flaky=st.booleans(),
    attempts=st.integers(1, 2),
    seed=st.integers(0, 1 << 32),
    repeat=TEXT,
    seconds=SECONDS,
    evidence=st.sampled_from(["", "cells/a", "/etc", "..", "no"]),
    versions=WORDS,
    checksums=WORDS,
    measured=WORDS,
    accelerator=TEXT,
    worker=TEXT,
)
RUNS = st.builds(
    Run,
    begun=st.one_of(TEXT, st.datetimes().map(lambda moment: moment.isoformat())),
    ended=st.one_of(TEXT, st.datetimes().map(lambda moment: moment.isoformat())),
    seed=st.integers(),
    machine=WORDS,
    cells=st.lists(CELLS, max_size=3).map(tuple),
    results=st.lists(RESULTS, max_size=4).map(tuple),
)


@settings(deadline=None, max_examples=30)
@given(RUNS)
def test_any_run_makes_a_page_and_xml_in_which_all_of_it_is_text(run: Run) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "results.json").write_text(run.model_dump_json())
        kept = reading.read(Path(folder))
        assert kept.run == run
        page = Page(report.html(kept))
    root = ElementTree.fromstring(junit.document(suites.report(run)))
    shown = squeezed("".join(page.text))
    names = {case.get("name") for case in root.iter("testcase")}
    for each in {found.cell: found for found in run.results}.values():
        for case in each.cases:
            assert squeezed(case.name) in shown
            if case.verdict != "passed":
                assert squeezed(case.message) in shown
            # XML keeps tabs and ends of lines in attributes only where they are escaped, as they are.
            assert printable(case.name) in names
    assert len(page.all("details", **{})) >= len({*run.cells, *(each.cell for each in run.results)})


def squeezed(text: str) -> str:
    """``text`` as a page shows it, without blanks."""
    return "".join(printable(text).split())


# --- files ----------------------------------------------------------------------------------


def test_what_is_written_where(kept: Kept, tmp_path: Path) -> None:
    html, file = tmp_path / "a.html", tmp_path / "b.xml"
    assert writer.write(kept, html=html, reports={"junit": file}) == {"page": html, "JUnit XML": file}
    assert html.read_text() == report.html(kept)
    assert file.read_bytes() == junit.document(suites.report(kept.run))
    with pytest.raises(
        UsageError,
        match=r"no/a\.html cannot be written: there is no folder .*/no\n  --html takes the name of a file",
    ):
        writer.write(kept, html=tmp_path / "no/a.html")


def test_the_schema_is_up_to_date() -> None:
    written = json.loads((PROJECT / "docs/matrix.schema.json").read_text())
    assert written == results.json_schema(), "write it anew: ./run matrix.schema > docs/matrix.schema.json"


def test_the_schema_describes_every_field() -> None:
    schema = results.json_schema()
    for model in [schema, *schema["$defs"].values()]:
        assert model["additionalProperties"] is False
        for name, field in model["properties"].items():
            assert field.get("description"), f"{model['title']}.{name}"
