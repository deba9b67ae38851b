"""The server: OpenAI's audio API over steered models.

A request's way: observe (log, metrics) → security (key) → uploads (limits, form) → options (checked before
any queue) → fleet (the model named, loaded) → engine (bounded queue, worker thread) → decoding → the model →
responses.
"""
