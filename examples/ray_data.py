"""Classifies Parquet files by actors of Ray Data, and writes the answers as Parquet files.

    pip install 'itrex-sweet[ray]'
    python examples/ray_data.py my-classifier-int8 texts/ answers/ --actors 4

Leave CPUs for the tasks that read and write: actors hold `--actors` times `--cpus` until the end.
On a cluster, the artifact has to be at the same path on every machine; `RAY_ADDRESS=auto` connects to a running one.
`itrex-sweet predict DIR texts/ --output answers --ray` also reads JSON lines and CSV, and can be continued.
"""

from __future__ import annotations

import argparse


def main() -> None:
    """Runs the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("texts", help="Parquet files")
    parser.add_argument("answers", help="a folder")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--actors", type=int, default=4)
    parser.add_argument("--cpus", type=float, default=1, help="of each actor")
    args = parser.parse_args()

    import ray

    from itrex_sweet.cluster import SweetPredictor, artifact_identity

    dataset = ray.data.read_parquet(args.texts).map_batches(
        SweetPredictor,
        fn_constructor_kwargs={
            "artifact": args.artifact,
            "text_column": args.text_column,
            "prefix": "predicted_",
            "identity": artifact_identity(args.artifact),
        },
        compute=ray.data.ActorPoolStrategy(size=args.actors),
        num_cpus=args.cpus,
        batch_size=4096,
        batch_format="pyarrow",
    )
    dataset.write_parquet(args.answers)


if __name__ == "__main__":
    main()
