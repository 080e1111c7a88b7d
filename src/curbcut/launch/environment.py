"""A process's place among ranks that something else started: torchrun's environment variables.

`torchrun --nnodes 2 ... -m curbcut train run.toml` starts this on each host; any launcher that sets
the same variables (`srun` with a line of shell, a cloud's agent) is joined the same way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from curbcut.errors import InputError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
RENDEZVOUS_SECONDS = 600.0
"""How long the ranks wait for the last of them to come."""
TOLD_SECONDS = 3.0
"""A launcher ends all ranks when the first one leaves: the one that says why must be that."""


@dataclass(frozen=True)
class Seat:
    """Which rank this process is, of how many, and where the ranks find each other."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    """Ranks on this node."""
    address: str
    port: int
    attempt: int = 1
    agent_store: bool = False
    """Whether the launcher serves the store itself (torchrun's agent, ours), or rank 0 has to."""

    @property
    def main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def leader(self) -> bool:
        """Whether this rank does what is done once a node."""
        return self.local_rank == 0

    @property
    def node(self) -> int:
        """This node's number, from 0 (nodes have equally many ranks)."""
        return self.rank // self.local_size

    @property
    def nodes(self) -> int:
        """Nodes of the run."""
        return self.size // self.local_size


def read(environment: Mapping[str, str] | None = None) -> Seat | None:
    """The seat that the environment gives, or None where this process was started alone.

    Raises InputError for one that is given by halves or makes no sense.
    """
    found = os.environ if environment is None else environment
    if "RANK" not in found or "WORLD_SIZE" not in found:
        return None
    missing = [name for name in NEEDED if not found.get(name)]
    if missing:
        raise InputError(f"RANK and WORLD_SIZE are set and {' and '.join(missing)} is not",
                         where="environment", mend="start it with torchrun, or unset RANK and "
                         "WORLD_SIZE to let `curbcut train` start the ranks")
    size = _number(found, "WORLD_SIZE")
    local_size = _number(found, "LOCAL_WORLD_SIZE", 1)
    seat = Seat(
        rank=_number(found, "RANK"), size=size, local_rank=_number(found, "LOCAL_RANK", 0),
        local_size=local_size, address=found["MASTER_ADDR"], port=_number(found, "MASTER_PORT"),
        attempt=1 + _number(found, "TORCHELASTIC_RESTART_COUNT", 0),
        agent_store=found.get("TORCHELASTIC_USE_AGENT_STORE") == "True")
    if not (0 <= seat.rank < size and 0 <= seat.local_rank < local_size) or size % local_size:
        raise InputError(f"RANK={seat.rank} of WORLD_SIZE={size}, LOCAL_RANK={seat.local_rank} of "
                         f"LOCAL_WORLD_SIZE={local_size} is no place among equal nodes",
                         where="environment", mend="start as many processes on each node")
    return seat if size > 1 else None


def refuse(seat: Seat, error: InputError) -> NoReturn:
    """Raises `error` on rank 0; the others leave without a word, once it had time to be told."""
    if seat.main:
        raise error
    time.sleep(TOLD_SECONDS)
    raise SystemExit(error.exit_code)


def _number(found: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = found.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name}={text!r} is no whole number", where="environment",
                         mend="start it with torchrun") from None


def store(seat: Seat, job: str) -> Any:
    """Where the ranks of one attempt meet: nothing of an earlier attempt is in it.

    A launcher that starts ranks again keeps its store, whose old addresses would be taken for new
    ones; hence the attempt in the prefix. Raises InputError where nobody answers.
    """
    from torch.distributed import DistNetworkError, DistStoreError, PrefixStore, TCPStore  # type: ignore[attr-defined]

    try:
        served = TCPStore(seat.address, seat.port, is_master=seat.main and not seat.agent_store,
                          wait_for_workers=False,
                          timeout=timedelta(seconds=RENDEZVOUS_SECONDS))
    except (DistNetworkError, DistStoreError) as error:
        raise InputError(f"the other ranks cannot be met ({str(error).splitlines()[0]})",
                         where=f"MASTER_ADDR {seat.address}:{seat.port}",
                         mend="check that the address is reachable from every node") from None
    return PrefixStore(f"{job}/attempt-{seat.attempt}", served)
