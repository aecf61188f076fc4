"""Adds exits to a fine-tuned classifier, using unlabelled texts, and measures what they gain.

python examples/accelerate_deployed_model.py --model my-deployed-classifier --traffic traffic.txt --output fast
"""

import argparse
import sys
from pathlib import Path

from itrex_sweet import accelerate
from itrex_sweet.demo.corpus import make_corpus
from itrex_sweet.errors import NoGainError


def main(argv: list[str] | None = None) -> int:
    """Prints speed-up and agreement; returns 3 if early exit is not faster."""
    args = parse(argv)
    texts = args.traffic or [review.text for review in make_corpus(0, 0, 0, traffic=args.rows)["traffic"]]
    try:
        result = accelerate(
            args.model,
            texts,
            args.output,
            max_agreement_drop=args.max_agreement_drop,
            learning_rate=args.learning_rate,
            quantize=not args.float32,
            limit=args.rows,
        )
    except NoGainError as error:
        print(error)
        return 3
    measured = result.measured
    print(
        f"{args.output}: {measured.precision}, exits {measured.exits}\n"
        f"{measured.over_full_depth:.1f} times as fast as full depth, "
        f"{measured.over_checkpoint:.1f} times as fast as transformers\n"
        f"same label as the original model: {100 * measured.agreement:.1f} % of {measured.rows} new texts "
        f"(at least {100 * measured.agreement_at_least:.1f} % with 95 % confidence)"
    )
    return 0 if result.pays else 3


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a fine-tuned Hugging Face classifier")
    parser.add_argument("--traffic", help=".txt, .csv, .tsv or .jsonl; labels are ignored (default: generated reviews)")
    parser.add_argument("--rows", type=int, default=6000, help="texts to use at most (default: 6000)")
    parser.add_argument("--max-agreement-drop", type=float, default=0.02, help="(default: 0.02)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the exits (default: 3e-4)")
    parser.add_argument("--float32", action="store_true", help="do not quantize")
    parser.add_argument("--output", default="my-fast-classifier", help="(default: my-fast-classifier)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
