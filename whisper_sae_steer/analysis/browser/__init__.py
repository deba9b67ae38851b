"""A folder to browse features in, which opens without a server."""
