"""Command lines of `itrex-sweet train`."""

QUICK = ("--num-train-epochs", 1, "--learning-rate", "2e-3", "--use-cpu", "True")


def argv(pretrained, corpus, output, *more, train="train.csv", validation="dev.jsonl"):
    files = [
        "--train-file",
        corpus / train,
        *(["--validation-file", corpus / validation] if validation else []),
    ]
    return ["train", "--model", pretrained, *files, "--output", output, *QUICK, *more]
