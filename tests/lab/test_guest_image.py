"""Programs, modules and files of a current guest, each used once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import Names, Runner

LAB = """\
title: One director and a web server
networks:
  lan: {subnet: 10.0.0.0/24}
nodes:
  director:
    role: director
    kernel: debian-cloud
    packages: [keepalived, iputils-ping]
    files:
      /etc/keepalived/keepalived.conf: keepalived.conf
      /usr/local/bin/look: look.sh
    interfaces:
      eth0: {network: lan, address: 10.0.0.1}
  server:
    role: real-server
    interfaces:
      eth0: {network: lan, address: 10.0.0.2}
    services:
      - {kind: http}
"""
HOWTO = """\
# Look

```sh node=director
ipvsadm -A -t 10.0.0.9:http -s rr
```
"""
KEEPALIVED = """\
virtual_server 10.0.0.10 80 {
  lvs_sched wrr
  lvs_method NAT
  protocol TCP
  real_server 10.0.0.2 80 {
    weight 3
  }
}
"""
MODULES = (
    *("dummy", "veth", "bridge", "8021q", "macvlan", "vxlan", "vrf", "ifb", "ipvlan"),
    *("sch_netem", "sch_tbf", "sch_htb", "sch_prio", "sch_sfq", "sch_fq_codel", "sch_ingress"),
    *("cls_u32", "cls_flower", "cls_fw", "cls_matchall", "act_mirred", "act_police", "act_gact"),
    *("ipip", "sit", "ip6_tunnel", "gre", "ip_gre", "ip6_gre", "fou", "fou6", "sctp"),
    *("ip_set", "ip_set_hash_ip", "ip_set_hash_net", "xt_set", "xt_ipvs", "br_netfilter"),
)
# What loads modules by itself, as it does on any machine.
LINKS = (
    "link add dummy1 type dummy",
    "link add veth1 type veth peer name veth2",
    "link add bridge1 type bridge",
    "link add link eth0 name eth0.5 type vlan id 5",
    "link add macvlan1 link eth0 type macvlan mode bridge",
    "link add vxlan1 type vxlan id 5 dstport 4789 remote 10.0.0.2 dev eth0",
    "link add vrf1 type vrf table 5",
    "tunnel add ipip1 mode ipip remote 10.0.0.2",
    "tunnel add gre1 mode gre remote 10.0.0.2",
    "tunnel add sit1 mode sit remote 10.0.0.2",
    "-6 tunnel add six1 mode ipip6 remote fd00::2",
)
PROGRAMS = {
    "ss -tln": "Local Address:Port",
    "ss -S -ln": "Local Address:Port",
    "bridge link add 2>&1; bridge -V": "bridge utility",
    "tc qdisc add dev eth0 root netem delay 1ms && tc qdisc del dev eth0 root && echo netem": "netem",
    "tc qdisc add dev eth0 root tbf rate 1mbit burst 10k latency 10ms && tc qdisc del dev eth0 root "
    "&& echo tbf": "tbf",
    "ipset create one hash:ip && ipset add one 10.0.0.2 && ipset list one": "\n10.0.0.2",
    "iptables -A OUTPUT -m set --match-set one dst -j ACCEPT && iptables -S OUTPUT": "--match-set one dst",
    "iptables-legacy -t mangle -A OUTPUT -m ipvs --ipvs && iptables-legacy -t mangle -S OUTPUT": "-m ipvs",
    "conntrack -L 2>&1": "conntrack v",
    "curl -s http://10.0.0.2/": "made by server",
    "wget -qO- -T 5 http://10.0.0.2/": "made by server",
    "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | socat - TCP:10.0.0.2:80": "made by server",
    "{ sleep 1; ping -c 1 10.0.0.2 >&2; } & tcpdump -lni eth0 -c 1 icmp 2>&1": "ICMP echo request",
    "ipvsadm -L": "10.0.0.9:http",
    "ipvsadm -Ln": "10.0.0.9:80",
    "ip -V": "iproute2",
    "ping -V": "iputils",
    "look": "looked",
    "keepalived --config-test && echo right": "right",
    "modprobe fou && ip fou add port 5555 gue && ip link add gue1 type ipip remote 10.0.0.3 local 10.0.0.1 "
    "encap gue encap-sport auto encap-dport 5555 && ip fou show": "port 5555 gue",
}


@pytest.fixture(scope="module")
def lab(run: Runner, module_names: Names, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lab with a director, and a web server on a host."""
    folder, name = tmp_path_factory.mktemp("lab"), module_names()
    (folder / "lab.yaml").write_text(LAB)
    (folder / "howto.md").write_text(HOWTO)
    (folder / "keepalived.conf").write_text(KEEPALIVED)
    (folder / "look.sh").write_text("#!/bin/sh\necho looked\n")
    (folder / "look.sh").chmod(0o755)
    run("lab.up", str(folder), "--name", name, "--json")
    return name


def test_links_and_tunnels_without_modprobe(run: Runner, lab: str) -> None:
    script = "\n".join(f"ip {words} || echo 'no: {words}'" for words in LINKS)
    assert run.execute(lab, "director", script) == ""


def test_modules(run: Runner, lab: str) -> None:
    script = f"for module in {' '.join(MODULES)}; do modprobe $module || echo $module; done"
    assert run.execute(lab, "director", script) == ""


@pytest.mark.parametrize("command", PROGRAMS, ids=lambda command: command.split()[0])
def test_programs(run: Runner, lab: str, command: str) -> None:
    assert PROGRAMS[command] in run.execute(lab, "director", command)


def test_a_package_runs_with_a_file_of_the_lab(run: Runner, lab: str) -> None:
    table = "tries=100; until ipvsadm -Ln | grep -A1 10.0.0.10:80 | grep 10.0.0.2:80; do"
    said = run.execute(
        lab, "director", f"keepalived; {table} [ $((tries -= 1)) -gt 0 ] || exit; sleep 0.1; done"
    )
    assert said.split() == ["->", "10.0.0.2:80", "Masq", "3", "0", "0"]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (
            "iputils-ping",
            "lvslab-has-no-such",
            "the distribution has no package lvslab-has-no-such",
        ),
        ("look.sh", "gone.sh", "gone.sh is not there"),
        ("/usr/local/bin/look", "/usr/bin/ip", "/usr/bin/ip is lvslab's own in a guest"),
    ],
)
def test_mistakes_before_the_boot(
    run: Runner, names: Names, tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    (tmp_path / "lab.yaml").write_text(LAB.replace(right, wrong))
    (tmp_path / "howto.md").write_text(HOWTO)
    for name in ("keepalived.conf", "look.sh"):
        (tmp_path / name).write_text("")
    done = run("lab.up", str(tmp_path), "--name", names(), "--json", status=2)
    assert said in done.stderr


def test_programs_in_a_terminal(run: Runner, lab: str) -> None:
    with run.terminal("lab.ssh", "director", "--name", lab) as terminal:
        terminal.expect("director# ")
        terminal.type("vi /tmp/text\r")
        terminal.expect("1/1 100%")
        terminal.type("ihello")
        terminal.expect("hello")
        # Alone: with what follows at once it would be the beginning of another key.
        terminal.type("\x1b")
        terminal.expect("Modified")
        terminal.type(":wq\r")
        terminal.expect("director# ")
        terminal.type("cat /tmp/text; less /etc/services\r")
        terminal.expect("hello\r\n")
        terminal.expect("/etc/services")
        terminal.type("q")
        terminal.expect("director# ")
        terminal.type("ping 10.0.0.2\r")
        terminal.expect("seq=2")
        terminal.type("\x03")
        terminal.expect("packet loss")
        terminal.type("tcpdump -ni eth0\r")
        terminal.expect("listening on eth0")
        terminal.type("\x03")
        terminal.expect("packets captured")
        terminal.expect("director# ")
        terminal.type("exit\r")
        assert terminal.status() == 0


@pytest.mark.parametrize("kind", ["linux", "xterm", "xterm-256color", "vt100", "screen", "tmux-256color"])
def test_terminals_that_are_known(run: Runner, lab: str, kind: str) -> None:
    path = Path("/usr/lib/terminfo") / kind[0] / kind
    assert run.execute(lab, "director", f"test -s {path} && echo there") == "there"
