"""Audio: any file as 16 kHz samples and back, lists of clips, synthetic sounds, mixtures, units of time."""
