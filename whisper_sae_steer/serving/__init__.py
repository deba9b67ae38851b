"""The server: OpenAI's audio API over one steered model.

A request's way: observe (log, metrics) → security (key) → uploads (limits, form) → options (checked before
any queue) → engine (bounded queue, worker thread) → decoding → the model → responses.
"""
