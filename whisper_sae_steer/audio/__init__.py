"""Any audio as 16 kHz samples, lists of clips, synthetic sounds and mixtures."""
