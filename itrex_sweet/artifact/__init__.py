"""The on-disk format of models, between training and inference; written atomically, and verified when read.

Layout of a folder::

    config.json         the Hugging Face config, with the training settings under `sweet`
    sweet_config.json   schema version, exits, policy, precision, provenance; `files`: size and SHA-256 of every other
                        file but the card; `calibration`: data and guarantee of the policy; `costs`: milliseconds on the
                        machine named there; `digest`: SHA-256 of these settings
    model.safetensors   the model and its exit heads, float32; or, quantized,
    model_int8.safetensors   the same, linear layers of the encoder as `NAME.weight` int8 (out, in) with
                        `NAME.weight_scale` (out,), and for their inputs `NAME.input_scale` and
                        `NAME.input_zero_point` (neither: one per row, at run time), `NAME.input_smoothing` (in,)
                        both: of exit k `sweet_exits.<k>.dense`, `.classifier`, and in mode "decoupled"
                        `sweet_exits.<k>.layer.*`, its private copy of encoder layer k
    tokenizer files     as the tokenizer saves them
    fingerprints.safetensors   hashes of the rows it was trained, calibrated and reported on
    README.md           the model card

A cascade (the Multi-Model baseline) has the same two JSON files, and one sub-folder per stage that holds that
stage's `config.json` and `model.safetensors`. No pickle is read or written.

Files are read once, into memory of the process, and verified there; `commit` says how a folder is replaced.
"""

from itrex_sweet.artifact.copying import copy_artifact, write_card
from itrex_sweet.artifact.layout import CASCADE, EARLY_EXIT, FLOAT32, INT8, SCHEMA_VERSION
from itrex_sweet.artifact.pruning import keep_exits
from itrex_sweet.artifact.reading import Artifact, open_artifact
from itrex_sweet.artifact.settings import library_versions
from itrex_sweet.artifact.writing import write_artifact, write_cascade

__all__ = [
    "CASCADE",
    "EARLY_EXIT",
    "FLOAT32",
    "INT8",
    "SCHEMA_VERSION",
    "Artifact",
    "copy_artifact",
    "keep_exits",
    "library_versions",
    "open_artifact",
    "write_artifact",
    "write_card",
    "write_cascade",
]
