"""OpenAI's Realtime API for transcription: ``/v1/realtime?intent=transcription``.

An event's way: route (WebSocket) → events (its shape) → settings or audio (16 kHz) → backlog → turns (what
is an item, and its transcript) → events. ``docs/realtime.md`` says what differs from OpenAI's.
"""
