"""Access over HTTP, /admin/...: organisations, projects, keys, limits, budgets, prices, texts."""
