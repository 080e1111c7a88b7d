"""Each method as a lever: the run priced again with it, alone and in the best order."""
