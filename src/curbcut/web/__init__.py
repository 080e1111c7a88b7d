"""The pages that `curbcut ui` shows: runs, comparison, planner, models and keys, budget.

    server.py    start and stop: port, link, signals; app.py joins the routes behind door.py
    site.py      what all pages stand on: `Site` with the folder of runs, `ledger()` (None while
                 there is none), `table` (rows of all runs), `columns` (what runs recorded)
    inboxes.py, watch.py, table.py    what is new, by whom, and since which cursor
    columns.py, measures.py, thinning.py, promises.py    from recorded lines to few points
    shell.py     templates, files that pages load; pages.py the routes of both
    runs.py, series.py, live.py, folder.py, timeline.py    the JSON of runs, charts and news

A module of pages exposes `routes(site) -> list[Route]`; `app.PAGES` lists them. Endpoints are plain
functions (they run on a few threads) wrapped by `answers.as_json`: they return what JSON can hold
and raise `curbcut.errors`. What they read they read from the ledger; a name in a request is looked
up, never made part of a path.
"""
