"""A budget run backwards: from what may be spent to the model, its tokens, machine and recipe.

Two stages. The first prices a coarse table (shapes x machines x counts x layouts, as columns of
the same physics that prices one run) and turns each limit into tokens and tokens into loss. The
second searches all recipes of the few best and resolves them to complete runs, each within its
limits by its own forecast: the plan that is executed is the plan that was priced.
"""
