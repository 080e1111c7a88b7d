"""The page: runs, comparisons, the planner, models and keys, budgets; drawn from the ledger."""
