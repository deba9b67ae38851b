"""The scripts behind the project's figures, in rooms by question; README.md is their index."""
