"""A load on any server of the OpenAI API, and what its users meet.

`lengths` draws prompts and answers, `load` says who asks when, `client` asks, `result` counts.
"""
