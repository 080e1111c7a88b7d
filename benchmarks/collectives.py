"""Gloo collectives between ranks, measured against what the plan's collective model promises.

Ranks are forked on this computer (2 and 4), and, as root with `ip` and `tc`, also placed in two
network namespaces joined by a link of limited bandwidth. The model is given the measured link (a
short all-reduce, as a plan on "2xhere" is) or the limit that was set, and its constants from the
facts; then every kind and size is promised and measured.

    python benchmarks/collectives.py [--json FILE] [--hosts] [--mbit 100 400]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
import torch.distributed as dist

from curbcut.meter import forked, link
from curbcut.physics import collectives
from curbcut.physics.constants import training_constants
from curbcut.physics.operations import Collective
from curbcut.physics.rates import Chip

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from hosts import Hosts, missing

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
SIZES = (2**12, 2**16, 2**20, 2**23, 2**25)
SLOW_SIZES = (2**16, 2**20, 2**22)


def acts(bytes_: int, ranks: int) -> dict[str, Callable[[], Any]]:
    """Each collective with a payload of `bytes_` in all: what the model calls its bytes."""
    whole = torch.zeros(max(ranks, bytes_ // 4 // ranks * ranks))
    part, other = torch.zeros(whole.numel() // ranks), torch.zeros_like(whole)
    return {"all_reduce": lambda: dist.all_reduce(whole),
            "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
            "all_to_all": lambda: dist.all_to_all_single(other, whole)}


def measured(rank: int, ranks: int, method: str, sizes: tuple[int, ...]) -> dict[str, list[float]]:
    """Median and least seconds of each kind and size, of the slowest rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=ranks)
    found = {}
    for size in sizes:
        for kind, act in acts(size, ranks).items():
            act()
            seconds = []
            for _ in range(5 if size > 2**20 else 15):
                dist.barrier()
                start = time.perf_counter()
                act()
                seconds.append(time.perf_counter() - start)
            # The quickest of them is what links do where this computer does nothing else.
            told = torch.tensor([median(seconds), min(seconds)])
            dist.all_reduce(told, op=dist.ReduceOp.MAX)
            found[f"{kind} {size}"] = told.tolist()
    dist.destroy_process_group()
    return found


def promised(kind: str, size: int, ranks: int, chip: Chip) -> float:
    """Seconds by the plan's model."""
    each = Collective(name="benchmark", kind=kind, bytes_=size, ranks=ranks, stride=1,
                      times=1)  # type: ignore[arg-type]
    return float(collectives.seconds(each, chip, training_constants("cpu", "torch")))


def chip_of(ranks: int, nodes: int, bytes_per_second: float, network: float) -> Chip:
    """A chip of which only the links matter."""
    return Chip(flops=1e12, low_flops=1e12, bytes_per_second=1e10, memory_bytes=2**30,
                per_node=ranks // nodes, domain=ranks // nodes, nodes=nodes,
                link=bytes_per_second, network=network)


def rows(place: str, ranks: int, chip: Chip, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    """One row a measurement."""
    table = []
    for name, (seconds, least) in found.items():
        kind, size = name.split()
        told = promised(kind, int(size), ranks, chip)
        table.append({"place": place, "ranks": ranks, "kind": kind, "bytes": int(size),
                      "measured_seconds": seconds, "promised_seconds": told,
                      "least_seconds": least, "promised_over_measured": told / least})
    return table


def here(ranks: int) -> list[dict[str, Any]]:
    """On this computer."""
    between = link.probe(ranks)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory() as folder:
        found = forked.run(lambda rank: measured(rank, ranks, f"file://{folder}/store", SIZES),
                           ranks, 300.0)[0]
    print(f"here, {ranks} ranks: link {between.bytes_per_second / 1e9:.2f} GB/s, start "
          f"{between.latency_seconds * 1e6:.0f} us (probe)")
    return rows("here", ranks, chip_of(ranks, 1, between.bytes_per_second, 1e9), found)


def on_hosts(mbit: int) -> list[dict[str, Any]]:
    """One rank in each of two namespaces with a link of `mbit` between them."""
    with tempfile.TemporaryDirectory() as folder, Hosts(2, mbit) as hosts:
        def work(rank: int) -> dict[str, list[float]]:
            hosts.enter(rank)
            os.environ["GLOO_SOCKET_IFNAME"] = hosts.interface(rank)
            return measured(rank, 2, f"file://{folder}/store", SLOW_SIZES)

        found = forked.run(work, 2, 300.0)[0]
    return rows(f"2 hosts, {mbit} Mbit/s", 2, chip_of(2, 2, 1e10, mbit / 8 * 1e6), found)


def main() -> None:
    """Prints the table, and keeps it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hosts", action="store_true", help="two network namespaces too (root)")
    parser.add_argument("--mbit", type=int, nargs="+", default=[100, 400])
    args = parser.parse_args()
    table = [row for ranks in (2, 4) for row in here(ranks)]
    if args.hosts and not (why := missing()):
        table += [row for mbit in args.mbit for row in on_hosts(mbit)]
    elif args.hosts:
        print(f"two hosts are left out: {why}")
    print(f"{'place':<22} ranks {'kind':<15} {'bytes':>10} {'median':>11} {'least':>11} "
          f"{'promised':>11} ratio")
    for row in table:
        print(f"{row['place']:<22} {row['ranks']:>5} {row['kind']:<15} {row['bytes']:>10,} "
              f"{row['measured_seconds'] * 1e3:>8.3f} ms {row['least_seconds'] * 1e3:>8.3f} ms "
              f"{row['promised_seconds'] * 1e3:>8.3f} ms "
              f"{row['promised_over_measured']:.2f}")
    for place in dict.fromkeys(row["place"] for row in table):
        ratios = [row["promised_over_measured"] for row in table if row["place"] == place]
        error = geometric_mean(max(one, 1 / one) for one in ratios)
        print(f"{place}: promised within a factor of {error:.2f} (geometric mean of the errors)")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
