"""Features found again: by other seeds, layers and models, and in other kinds of sound."""
