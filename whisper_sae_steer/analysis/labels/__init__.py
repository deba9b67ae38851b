"""Features and labels: which ones tell a label, and how many it takes."""
