"""How alike features are: across seeds, layers and models, and across speech, music and other sound."""
