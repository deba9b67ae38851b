"""Hard cases for the bench: clean utterances made hard in one known way each, and sounds without speech.

A recording depends only on the seed, its condition and the clips it is made from. An utterance
meets the same noise at every SNR, and `silent-gaps` are the `gaps` without their noise,
and `paragraphs` the `music-gaps` with other fillings, so conditions differ in nothing but what their
names say.
"""
