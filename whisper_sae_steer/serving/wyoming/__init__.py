"""Home Assistant's protocol, Wyoming, over the same engine as HTTP.

A connection's way: events (read within limits) → connection (what they ask for) → utterances (a whole
recording, or live) → the engine. ``info`` says what there is to ask for.
"""

from .server import listening

__all__ = ["listening"]
