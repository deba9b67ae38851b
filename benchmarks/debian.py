"""Files of Debian packages, for benchmarks. Needs apt-get and dpkg-deb."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unpacked(*packages: str) -> Iterator[Path]:
    """A temporary folder with the files of packages, as they would be installed."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for package in packages:
            subprocess.run(["apt-get", "download", "-q", package], cwd=root, check=True)
            (archive,) = root.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, root / "files"], check=True)
            archive.unlink()
        yield root / "files"
