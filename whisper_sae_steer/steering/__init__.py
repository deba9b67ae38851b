"""Between encoder and decoder: what edits encoded frames, when, and on whose call."""
