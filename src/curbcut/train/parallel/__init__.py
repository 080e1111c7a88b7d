"""How a recipe spreads a model over ranks: one file a method, applied in the order of `apply`."""
