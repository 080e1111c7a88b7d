"""Two or more hosts on one computer: network namespaces on a bridge of limited bandwidth.

Needs root, `ip` and `tc`. Everything is removed at the end, whatever happened.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

_CLONE_NEWNET = 0x40000000


def missing() -> str:
    """Why there can be no namespaces here; "" where they work."""
    for program in ("ip", "tc", "unshare"):
        if shutil.which(program) is None:
            return f"`{program}` is not installed"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"cc{os.getpid()}t"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return tried.stderr.strip() if tried.returncode else ""


class Hosts:
    """`count` namespaces with one card each, joined by a bridge; each card sends at most `mbit`."""

    def __init__(self, count: int = 2, mbit: int | None = None) -> None:
        self.count, self.mbit, self.tag = count, mbit, f"cc{os.getpid() % 100000}"

    def name(self, host: int) -> str:
        return f"{self.tag}h{host}"

    def interface(self, host: int) -> str:
        return f"{self.tag}v{host}"

    def address(self, host: int) -> str:
        return f"10.{187 + os.getpid() % 50}.77.{host + 1}"

    def __enter__(self) -> Hosts:
        try:
            _do(f"ip link add {self.tag}b type bridge", f"ip link set {self.tag}b up")
            for host in range(self.count):
                self._add(host)
        except BaseException:
            self.remove()
            raise
        return self

    def _add(self, host: int) -> None:
        name, card, peer = self.name(host), self.interface(host), f"{self.tag}p{host}"
        folder = Path("/etc/netns") / name
        folder.mkdir(parents=True)
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(
            f"{self.address(one)} {self.name(one)}\n" for one in range(self.count)))
        (folder / "nsswitch.conf").write_text("hosts: files\n")
        inside = f"ip netns exec {name}"
        _do(f"ip netns add {name}", f"ip link add {card} type veth peer name {peer}",
            f"ip link set {peer} master {self.tag}b", f"ip link set {peer} up",
            f"ip link set {card} netns {name}", f"{inside} ip link set lo up",
            f"{inside} ip addr add {self.address(host)}/24 dev {card}",
            f"{inside} ip link set {card} up")
        if self.mbit:
            _do(f"{inside} tc qdisc add dev {card} root tbf rate {self.mbit}mbit burst 64kb "
                "latency 50ms")

    def command(self, host: int, *command: str) -> list[str]:
        """`command` as it is run on a host, under its own host name."""
        inner = f"hostname {self.name(host)}; exec env GLOO_SOCKET_IFNAME={self.interface(host)} "
        return ["ip", "netns", "exec", self.name(host), "unshare", "-u", "sh", "-c",
                inner + '"$@"', "sh", *command]

    def enter(self, host: int) -> None:
        """Moves this process (a forked one) to a host."""
        with open(f"/run/netns/{self.name(host)}", "rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def remove(self) -> None:
        for host in range(self.count):
            subprocess.run(["ip", "link", "del", f"{self.tag}p{host}"], capture_output=True)
            subprocess.run(["ip", "netns", "del", self.name(host)], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / self.name(host), ignore_errors=True)
        subprocess.run(["ip", "link", "del", f"{self.tag}b"], capture_output=True)

    def __exit__(self, *_: object) -> None:
        self.remove()


def _do(*lines: str) -> None:
    for line in lines:
        done = subprocess.run(line.split(), capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{line}: {done.stderr.strip()}")
