"""A set of recordings as on the Hugging Face hub: parquet files, and a card that says what they hold."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_set(
    folder: Path, split: str, configs: Mapping[str, Sequence[Mapping[str, Any]]], prefix: str = ""
) -> str:
    """Write such a set, with rows for each configuration, and return its folder."""
    card = ["---", "configs:"]
    for config in configs:
        paths = f"{prefix}{config}/{split}-*"
        card += [f"- config_name: {config}", "  data_files:", f"  - split: {split}", f"    path: {paths}"]
    card.append("dataset_info:")
    for config, rows in configs.items():
        file = folder / f"{prefix}{config}" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True)
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, file, row_group_size=4)
        card += [f"- config_name: {config}", "  features:"]
        for field in table.schema:
            dtype = (
                str(field.type) if field.name != "audio" else "\n      audio:\n        sampling_rate: 16000"
            )
            card.append(f"  - name: {field.name}\n    dtype: {dtype}")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return str(folder)
