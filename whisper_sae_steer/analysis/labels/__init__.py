"""Features and labels: which features mark a label, and how many it takes to recognise or to erase it."""
