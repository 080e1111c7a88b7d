"""Documents, drawn from plans and the ledger."""
