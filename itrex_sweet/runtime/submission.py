"""The rows of one request in the scheduler, and the future of their answers."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request

_FIRST_ROW = np.zeros(1, np.int64)
_FIRST_ROW.flags.writeable = False


class Submission(Future):
    """Rows that were submitted together; as a future, their `Answers` in the submitted order.

    `cancel` drops the rows that have no answer yet.

    Args:
        batch: at least one row.
        request: its stopping options.
        policy: the request's, for the task of the model.
        num_labels: columns of the logits.
        number: submissions are numbered in the order of their arrival.
        due: in seconds of the clock; the scheduler serves the smallest first.

    Attributes:
        submitted_at, started_at, finished_at: times in seconds of the clock: of the submission, of the first embedding
            of a row, and of the last answer; `None` before.
        cost: of a row, relative to the scheduler's policy.
        unanswered: number of rows without an answer.
        is_over: whether its rows need not be computed any more.
        is_expired: whether the deadline has passed.
        error: of the computation.
    """

    def __init__(
        self,
        batch: TokenBatch,
        request: Request,
        policy: Policy,
        num_labels: int,
        number: int,
        submitted_at: float,
        due: float,
    ):
        super().__init__()
        rows = len(batch)
        self.batch = batch
        self.request = request
        self.policy = policy
        self.cost = 1.0
        self.deadline = request.deadline
        self.number = number
        self.due = due
        self.submitted_at = submitted_at
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.unanswered = rows
        self.is_over = self.is_expired = False
        self.error: Exception | None = None
        self.lengths = lengths = batch.lengths
        self.token_counts: list[int] = lengths.tolist()
        # Rows of similar length are computed together.
        self._order = _FIRST_ROW if rows == 1 else np.argsort(lengths, kind="stable")
        self._taken = 0
        self._num_labels = num_labels
        self._logits: np.ndarray | None = None
        self._exit_index: np.ndarray | None = None
        self._confidence: np.ndarray | None = None
        self._out_of_time = None if self.deadline is None else np.zeros(rows, dtype=bool)
        self._answers: Answers | None = None

    def __lt__(self, other: Submission) -> bool:
        return (self.due, self.number) < (other.due, other.number)

    @property
    def size(self) -> tuple[int, int]:
        """Number of rows, and of their tokens."""
        return len(self._order), int(self.batch.cu_seqlens[-1])

    @property
    def untaken(self) -> int:
        """Number of rows that are not embedded yet."""
        return len(self._order) - self._taken

    def take(self, max_rows: int, max_tokens: int) -> np.ndarray:
        """Removes and returns rows that are not embedded yet, shorter ones first, (rows,) int64.

        Args:
            max_rows: at least 1.
            max_tokens: of all returned rows; less than one row has gives that row if it is the first of its batch.
        """
        if len(self._order) == 1:
            return self.take_all()
        rows = self._order[self._taken : self._taken + max_rows]
        within = int(np.searchsorted(np.cumsum(self.lengths[rows]), max_tokens, side="right"))
        rows = rows[: max(within, 1)]
        self._taken += len(rows)
        return rows

    def take_all(self) -> np.ndarray:
        """Removes and returns all rows, of which none was taken before."""
        self._taken = len(self._order)
        return self._order

    def tokens_in(self, rows: np.ndarray) -> int:
        """Returns the number of tokens of rows."""
        return self.token_counts[0] if len(self.token_counts) == 1 else int(self.lengths[rows].sum())

    def untaken_tokens(self) -> int:
        """Returns the number of tokens of the rows that are not embedded yet."""
        return int(self.lengths[self._order[self._taken :]].sum())

    def next_length(self) -> int:
        """Returns the number of tokens of the row that `take` returns first."""
        return self.token_counts[self._order[self._taken]]

    def select(self, rows: np.ndarray) -> TokenBatch:
        """Returns rows of the batch."""
        return self.batch if len(rows) == len(self.batch) == 1 else self.batch.select(rows)

    def record(self, rows: np.ndarray | int, logits: np.ndarray, exit_index: int, confidence: np.ndarray) -> None:
        """Stores the outputs of an exit, which replace those of earlier exits."""
        if self._logits is None:
            count = len(self._order)
            self._logits = np.zeros((count, self._num_labels), dtype=np.float32)
            self._exit_index = np.zeros(count, dtype=np.int64)
            self._confidence = np.zeros(count, dtype=np.float32)
        self._logits[rows] = logits
        self._exit_index[rows] = exit_index
        self._confidence[rows] = confidence

    def record_out_of_time(self, row: int) -> None:
        """Marks a row that the deadline has stopped."""
        if self._out_of_time is not None:
            self._out_of_time[row] = True

    def record_all(self, answers: Answers) -> None:
        """Stores the answers of all rows."""
        self._answers = answers

    def answers(self) -> Answers:
        """Returns the stored outputs as answers."""
        answers = self._answers
        if answers is None:
            rows = np.arange(len(self._order))
            answers = Answers(rows, self._logits, self._exit_index, self._confidence, self._out_of_time)
        answers.request = self.request
        return answers

    def resolve(self) -> None:
        """Sets the result of the future, or the error if there is one, unless it was cancelled."""
        if self.set_running_or_notify_cancel():
            if self.error is not None:
                self.set_exception(self.error)
            else:
                self.set_result(self.answers())
