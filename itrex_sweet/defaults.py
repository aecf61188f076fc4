"""Default values of arguments, and the words that arguments accept, shared by Python functions and the command line.

Imports nothing, so that the command line prints help without NumPy and torch. The settings of training, policies,
servers and folders of answers have theirs in `config`, `policy`, `serving.settings` and `cluster.settings`.
"""

# running a model
DEFAULT_BACKEND = "auto"
DEFAULT_BATCH_SIZE = 32  # rows
DTYPES = ("float32", "bfloat16")
TRUNCATE, REFUSE = OVERLONG = ("truncate", "refuse")

# schedulers and servers
DEFAULT_MAX_WAITING_ROWS = 2048
DEFAULT_TARGET_SECONDS = 0.05  # in which a degrading scheduler answers a new row

# training of exits on a frozen model, and acceleration
DEFAULT_EPOCHS, DEFAULT_LEARNING_RATE, DEFAULT_TRAINING_BATCH_SIZE, DEFAULT_TRAINING_SEED = 3.0, 5e-5, 32, 42
DEFAULT_AGREEMENT_DROP = 0.01
MIN_SPEEDUP = 1.2

# calibration and pruning
DEFAULT_CONFIDENCE = 0.95
DEFAULT_MAX_DROP, DEFAULT_LEAST_GAIN = 0.05, 0.01
DEFAULT_SEED = 0  # of splits of rows
MILLISECONDS, LAYERS = UNITS = ("milliseconds", "layers")

# evaluation
DEFAULT_TIMED_ROWS, DEFAULT_REPEATS = 256, 3
MEANS = ("accuracy", "exact_match")  # metrics that are means over rows
METRIC_NAMES = (
    *("accuracy", "f1", "matthews"),
    *("exact_match", "micro_f1", "macro_f1"),
    *("pearson", "spearman", "negative_mse"),
)

# quantization
AUTO = "auto"
RECIPES = ("static", "smooth", "dynamic")  # that `AUTO` chooses from, fastest at run time first
EMBEDDINGS = ("int8", "float32")  # precisions of the word embeddings
DEFAULT_OBSERVED_ROWS = 200
DEFAULT_SCORE_DROP, DEFAULT_MOVED, DEFAULT_CHANGED = 0.01, 0.1, 0.005
