"""A model behind the OpenAI API, in three rooms: api on gateway on engine.

    server.py    start and stop: port, key rule, signals
    opening.py   from a folder and a way of serving to an engine; books.py what it will hold
    api/         routes, streaming, the shapes of answers
    gateway/     who may ask, and what may be asked: keys, fields, limits (no torch, no HTTP)
    engine/      tokens in, text out: ours on one thread, or another one behind the same contract
    bench/       many users at once, of any OpenAI-compatible server
    measure.py   a session as an `Account`; metrics.py the same for Prometheus
"""
