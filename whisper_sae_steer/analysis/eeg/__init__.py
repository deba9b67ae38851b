"""Responses of the brain to features: temporal response functions of recorded EEG."""
