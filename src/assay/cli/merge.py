"""``assay merge``: one result from the parts that several processes or machines made of one attack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="The --out folders of the shards; one that they shared will do.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the record to this file.", show_default=False)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write all samples to this Parquet file.", show_default=False)
    ] = None,
) -> None:
    """Put the shards of `assay attack --shard i/n --out DIR` together; each image must be there exactly once."""
    import pyarrow.parquet as pq
    from pyarrow import BufferOutputStream
    from rich.console import Console

    from assay.attacks.campaign import merge_campaign
    from assay.cli.attack_view import print_attack
    from assay.files import write_atomically

    done = merge_campaign(folders)
    print_attack(done.record, Console())
    if table is not None:
        sink = BufferOutputStream()
        pq.write_table(done.table.replace_schema_metadata(None), sink)
        write_atomically(table, sink.getvalue().to_pybytes())
    if json_file is not None:
        write_atomically(json_file, "[" + done.record.model_dump_json(indent=1) + "]\n")
