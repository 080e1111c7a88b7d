"""All levers of training, in the order of the framework's groups."""

from __future__ import annotations

from curbcut.errors import UnknownName
from curbcut.facts import levers as facts
from curbcut.plan.levers import (
    algorithms,
    buying,
    data,
    experts,
    formats,
    hardware,
    instead,
    partition,
    software,
    without,
)
from curbcut.plan.levers.case import Lever
from curbcut.spec.methods import CATALOGUE

TRAINING: tuple[Lever, ...] = (
    Lever("data-quality", "data reduction", data.quality, without=without.data_quality),
    Lever("data-reduction", "data reduction", data.reduction),
    Lever("muon", "training algorithms", algorithms.muon, without=without.muon),
    Lever("tuned-learning-rate", "training algorithms", algorithms.tuned_learning_rate),
    Lever("sparse-experts", "training algorithms", experts.sparse_experts),
    Lever("growth", "training algorithms", algorithms.growth),
    Lever("modern-recipe", "training algorithms", algorithms.modern_recipe),
    Lever("bf16-master-weights", "data formats", formats.bf16, without=without.wide),
    Lever("fp8", "data formats", formats.fp8, excludes="narrow", without=without.narrow),
    Lever("mxfp8", "data formats", formats.mxfp8, excludes="narrow", without=without.narrow),
    Lever("nvfp4", "data formats", formats.nvfp4, excludes="narrow", without=without.narrow),
    Lever("partitioning", "model partitioning", partition.partitioning),
    Lever("diloco", "model partitioning", partition.diloco),
    Lever("compile", "supercomputing optimisation", software.compiled, without=without.compiled),
    Lever("fused-attention", "supercomputing optimisation", software.fused_attention,
          without=without.fused_attention),
    Lever("recompute", "supercomputing optimisation", software.recompute),
    Lever("offload", "supercomputing optimisation", software.no_offload),
    Lever("checkpoint-interval", "supercomputing optimisation", software.checkpoint_interval),
    Lever("power-cap", "efficient hardware", software.power_cap),
    Lever("newer-chip", "efficient hardware", hardware.newer_chip, excludes="machine"),
    Lever("fewer-accelerators", "efficient hardware", hardware.fewer_accelerators,
          excludes="machine"),
    Lever("other-accelerator", "competitive accelerators", hardware.other_accelerator,
          excludes="machine"),
    Lever("spot", "buying and place", buying.spot, excludes="price", without=without.on_demand),
    Lever("reserved", "buying and place", buying.reserved, excludes="price"),
    Lever("cheapest-provider", "buying and place", buying.cheapest_provider, excludes="price"),
    Lever("place", "buying and place", buying.place),
    Lever("better-building", "buying and place", buying.better_building),
    Lever("clean-hours", "buying and place", buying.clean_hours),
    Lever("hyperparameter-transfer", "development", algorithms.hyperparameter_transfer),
    Lever("early-stopping", "development", algorithms.early_stopping),
    Lever("wsd-schedule", "development", algorithms.wsd, without=without.wsd),
    Lever("lora", "instead of training", instead.lora, kind="instead"),
    Lever("prune-and-distil", "instead of training", instead.prune_and_distil, kind="instead"),
    Lever("analog-in-memory", "revolutionary", instead.analog, kind="what-if"),
    Lever("energy-based-model", "revolutionary", instead.energy_based, kind="what-if"),
)


def chosen(names: list[str], among: tuple[Lever, ...] = TRAINING) -> tuple[Lever, ...]:
    """The levers of these names, all of them for none; raises UnknownName with the nearest,
    of a name and of a row of the facts.
    """
    methods = {one.name for one in CATALOGUE}
    for row in facts.rows():
        if row.lever not in methods:
            raise UnknownName("lever", row.lever, methods, where="levers.csv")
    known = {one.name for one in among}
    for name in names:
        if name not in known:
            raise UnknownName("lever", name, known, where="--only")
    return tuple(one for one in among if not names or one.name in names)
