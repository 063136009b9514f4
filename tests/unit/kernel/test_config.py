from __future__ import annotations

from pathlib import Path

import pytest

from lvslab.errors import LabFileError
from lvslab.kernel import catalogue, config_tree
from lvslab.kernel import config as kconfig
from lvslab.kernel.config import Mismatch, Setting
from lvslab.paths import PROJECT

FILE = Path("some.config")

TEXT = """\
# A remark.
CONFIG_IP_VS=y
# CONFIG_IP_VS_DEBUG is not set
CONFIG_IP_VS_TAB_BITS=16
CONFIG_NAME="with a = and \\" in it"

# since 2.6.22 before 3.2
CONFIG_NETDEV_1000=y
# Still the same lines.
CONFIG_M=m

# before 2.6.20
CONFIG_OLD=y

CONFIG_ALWAYS=y
"""


def parsed(text: str, version: str = "2.6.32") -> dict[str, str]:
    requested = kconfig.parse(text, FILE, catalogue.numbers(version))
    return {symbol: setting.value for symbol, setting in requested.items()}


def test_a_fragment_is_read() -> None:
    assert parsed(TEXT) == {
        "IP_VS": "y",
        "IP_VS_DEBUG": "n",
        "IP_VS_TAB_BITS": "16",
        "NAME": '"with a = and \\" in it"',
        "NETDEV_1000": "y",
        "M": "m",
        "ALWAYS": "y",
    }


@pytest.mark.parametrize(
    ("version", "there"),
    [
        ("2.6.19", {"OLD"}),
        ("2.6.20", set()),
        ("2.6.21.7", set()),
        ("2.6.22", {"NETDEV_1000", "M"}),
        ("3.1.10", {"NETDEV_1000", "M"}),
        ("3.2", set()),
        ("6.1", set()),
    ],
)
def test_lines_are_of_versions(version: str, there: set[str]) -> None:
    found = set(parsed(TEXT, version)) & {"OLD", "NETDEV_1000", "M"}
    assert found == there


def test_a_wish_says_where_it_stands() -> None:
    assert kconfig.parse(TEXT, FILE, (2, 6, 32))["IP_VS_TAB_BITS"].where == "some.config:4"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("CONFIG_A=y\nIP_VS=y\n", 2, "is not a line of a kernel configuration"),
        ("CONFIG_A=maybe\n", 1, "'maybe' is not a value"),
        ("CONFIG_A=\n", 1, "'' is not a value"),
        ('CONFIG_A="open\n', 1, "is not a value"),
        ("CONFIG_A=y\nCONFIG_A=m\n", 2, "CONFIG_A is m here, and y in some.config:1"),
        ("# since 2.6.x\nCONFIG_A=y\n", 1, "is not a range of versions"),
        ("# since 2.6.20 or so\nCONFIG_A=y\n", 1, "is not a range of versions"),
    ],
)
def test_mistakes_name_their_line(text: str, line: int, says: str) -> None:
    with pytest.raises(LabFileError, match=says) as caught:
        parsed(text)
    assert caught.value.line == line


def test_a_line_of_other_versions_contradicts_nothing() -> None:
    text = "# before 2.6\nCONFIG_A=y\n\n# since 2.6\nCONFIG_A=m\n"
    assert parsed(text, "2.4.37.11") == {"A": "y"}
    assert parsed(text, "2.6.11") == {"A": "m"}


def test_later_fragments_win() -> None:
    first = kconfig.parse("CONFIG_A=y\nCONFIG_B=y\n", FILE, (6, 1))
    second = kconfig.parse("CONFIG_B=m\n# CONFIG_C is not set\n", Path("own.config"), (6, 1))
    merged = kconfig.merge([first, second])
    assert kconfig.render(merged) == "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n"
    assert merged["B"].where == "own.config:1"


def test_every_wish_is_looked_for() -> None:
    requested = kconfig.parse(
        "CONFIG_YES=y\nCONFIG_DROPPED=y\nCONFIG_CHANGED=y\nCONFIG_BITS=16\nCONFIG_HEX=0x10\nCONFIG_NO=n\n"
        '# CONFIG_ON is not set\nCONFIG_EMPTY=""\nCONFIG_TEXT="a"\n',
        FILE,
        (6, 1),
    )
    final = 'CONFIG_YES=y\nCONFIG_CHANGED=m\nCONFIG_BITS=12\nCONFIG_HEX=0X10\nCONFIG_ON=y\nCONFIG_TEXT="b"\n'
    assert [(mismatch.setting.symbol, mismatch.found) for mismatch in kconfig.verify(requested, final)] == [
        ("DROPPED", "n"),
        ("CHANGED", "m"),
        ("BITS", "12"),
        ("ON", "y"),
        ("TEXT", '"b"'),
    ]
    assert kconfig.verify(requested, kconfig.render(requested)) == []


@pytest.mark.parametrize("row", catalogue.kernels().values(), ids=lambda row: str(row.name))
def test_fragments_of_every_kernel_can_be_read(row: catalogue.KernelRow) -> None:
    files = [PROJECT / "kernel-configs" / f"{name}.config" for name in row.fragments]
    numbers = catalogue.numbers(row.version)
    requested = kconfig.merge(kconfig.parse(file.read_text(), file, numbers) for file in files)
    assert requested["IP_VS"].value == "y"
    assert requested["IP_VS_TAB_BITS"].value == "16"
    assert requested["IP_VS_DEBUG"].value == "n"
    for scheduler in ("RR", "WRR", "LC", "WLC", "LBLC", "LBLCR", "DH", "SH", "SED", "NQ", "FTP"):
        assert requested[f"IP_VS_{scheduler}"].value == "m"


def test_a_later_scheduler_is_asked_of_kernels_that_have_it() -> None:
    file = PROJECT / "kernel-configs/ipvs-today.config"
    for version, there in (("5.10", False), ("5.12", True)):
        assert ("IP_VS_TWOS" in kconfig.parse(file.read_text(), file, catalogue.numbers(version))) is there


@pytest.mark.parametrize(
    ("expression", "level"),
    [
        ("A", 2),
        ("M", 1),
        ("NOTHING", 0),
        ("!A", 0),
        ("!M", 1),
        ("A && M", 1),
        ("NOTHING || M && A", 1),
        ("(NOTHING || A) && !NOTHING", 2),
        ("A=y && BITS=16", 2),
        ("M != n", 2),
        ("BITS > 8", 2),
        ("BITS >= 0x11", 0),
        ('TEXT = "abc"', 2),
        ("$(cc-option,-mfoo(a)) && M", 1),
        ("A &&", 2),  # not an expression: nothing that we could say is not met
    ],
)
def test_expressions_have_values(expression: str, level: int) -> None:
    config = {"A": "y", "M": "m", "BITS": "16", "TEXT": '"abc"'}
    assert config_tree.level(expression, config) == level


def test_conjuncts_are_those_of_the_top_level() -> None:
    assert config_tree.conjuncts("A && (B || C && D) && !E") == ["A", "(B || C && D)", "!E"]
    assert config_tree.conjuncts("(A && B)") == ["A", "B"]


KCONFIG = """\
mainmenu "Linux"
source "net/Kconfig"

config ALONE
\tbool
\tdefault y
\thelp
\t  config IN_HELP
\t  is no symbol.

config LAST
\ttristate "the last"
\tdepends on NET && \\
\t\tOTHER
"""
NET = """\
menuconfig NET
\tbool "Networking"

if NET

menu "Options"
\tdepends on INET

comment "a remark"
\tdepends on ODD

config IP_VS
\ttristate "IPVS"
\tdepends on NETFILTER && (A || B)
\t---help---
\t  Some

\t  lines.

config HIDDEN
\ttristate

endmenu

config ASKED
\tbool "Sometimes asked" if EXPERT

endif
config OUTSIDE
\tint "outside"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "Kconfig").write_text(KCONFIG)
    (tmp_path / "net/Kconfig").write_text(NET)
    return tmp_path


def test_kconfig_files_are_read(tree: Path) -> None:
    found = {place.symbol: place for place in config_tree.definitions(tree, "x86_64")}
    assert {name: place.depends for name, place in found.items()} == {
        "NET": (),
        "IP_VS": ("NET", "INET", "NETFILTER && (A || B)"),
        "HIDDEN": ("NET", "INET"),
        "ASKED": ("NET", "EXPERT"),
        "OUTSIDE": (),
        "ALONE": (),
        "LAST": ("NET && OTHER",),
    }
    assert found["IP_VS"].where == "net/Kconfig:12"
    assert [name for name, place in found.items() if not place.prompt] == ["HIDDEN", "ALONE"]
    assert found["OUTSIDE"].type == "int"


def test_a_comment_has_conditions_for_itself_alone(tmp_path: Path) -> None:
    text = """comment "no keyboard"
\tdepends on !INPUT

if MICE

config MOUSE
\tbool "a mouse"

endif
"""
    (tmp_path / "Kconfig").write_text(text)
    (mouse,) = config_tree.definitions(tmp_path, "x86_64")
    assert (mouse.symbol, mouse.where, mouse.depends) == ("MOUSE", "Kconfig:6", ("MICE",))


CONFIG_IN = """\
mainmenu_name "Linux"
if [ "$CONFIG_NET" = "y" -a "$CONFIG_EXPERIMENTAL" = "y" ]; then
   tristate 'IPVS' CONFIG_IP_VS
   if [ "$CONFIG_IP_VS" != "n" ]; then
      int '  table' CONFIG_IP_VS_TAB_BITS 12
      dep_tristate '  rr' CONFIG_IP_VS_RR $CONFIG_IP_VS
   fi
else
   define_bool CONFIG_NO_NET y
fi
choice 'Processor' \\
\t"386 CONFIG_M386 \\
\t 586 CONFIG_M586" 386
"""


def test_config_in_is_read(tmp_path: Path) -> None:
    (tmp_path / "arch/i386").mkdir(parents=True)
    (tmp_path / "arch/i386/config.in").write_text(CONFIG_IN)
    found = {place.symbol: place for place in config_tree.definitions(tmp_path, "i386")}
    outer = 'NET = "y" && EXPERIMENTAL = "y"'
    assert found["IP_VS_RR"].depends == (outer, 'IP_VS != "n"', "IP_VS")
    assert found["IP_VS_TAB_BITS"].depends == (outer, 'IP_VS != "n"')
    assert found["NO_NET"].depends == (f"!({outer})",) and not found["NO_NET"].prompt
    assert found["M586"].depends == () and found["M586"].prompt


def why(tree: Path, symbol: str, wanted: str, config: str, found: str = "n") -> str:
    known = config_tree.definitions(tree, "x86_64")
    return config_tree.explain(Mismatch(Setting(symbol, wanted), found), known, kconfig.values(config))


def test_a_reason_names_what_is_not_met(tree: Path) -> None:
    said = why(tree, "IP_VS", "y", "CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_A=y\n")
    assert said == "it depends on NETFILTER (NETFILTER is n) (net/Kconfig:12)"
    # A module among the dependencies is enough for a module, and not for what is built in.
    module = "CONFIG_NET=y\nCONFIG_INET=y\nCONFIG_A=y\nCONFIG_NETFILTER=m\n"
    assert "NETFILTER is m" in why(tree, "IP_VS", "y", module, "m")
    assert "dependencies are met" in why(tree, "IP_VS", "m", module)


def test_a_reason_names_other_causes(tree: Path) -> None:
    assert why(tree, "IP_VSS", "y", "") == "this kernel has no such symbol; did you mean CONFIG_IP_VS?"
    assert why(tree, "XYZ", "y", "") == "this kernel has no such symbol"
    assert "cannot be set" in why(tree, "HIDDEN", "y", "")
    assert "select it" in why(tree, "OUTSIDE", "n", "CONFIG_OUTSIDE=3\n", "3")
