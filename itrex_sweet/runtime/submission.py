"""The rows of one request in the scheduler, and the future of their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np

from itrex_sweet.policy import Policy
from itrex_sweet.runtime.answers import Answers
from itrex_sweet.runtime.backends.base import Backend
from itrex_sweet.runtime.ragged import TokenBatch
from itrex_sweet.runtime.request import Request

_FIRST_ROW = np.zeros(1, np.int64)
_FIRST_ROW.flags.writeable = False


class Submission(Future):
    """Rows that were submitted together; as a future, their `Answers` in the submitted order.

    `cancel` drops the rows that have no answer yet.

    Args:
        batch: its rows, also none.
        request: its stopping options.
        policy: the request's, for the task of the model.
        num_labels: columns of the logits.
        number: submissions are numbered in the order of their arrival.
        due: in seconds of the clock; the scheduler serves the smallest first.

    Attributes:
        size: number of rows of `batch`, and of their tokens.
        first: index of the first of these rows among all rows of the submission.
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
        self._set(batch)
        rows = self._count
        self.request = request
        self.policy = policy
        self.cost = 1.0
        self.deadline = request.deadline
        self.number = number
        self.first = 0
        self.due = due
        self.submitted_at = submitted_at
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.unanswered = rows
        self.is_over = self.is_expired = False
        self.error: Exception | None = None
        self._num_labels = num_labels
        self._logits: np.ndarray | None = None
        self._exit_index: np.ndarray | None = None
        self._confidence: np.ndarray | None = None
        self._out_of_time = None if self.deadline is None else np.zeros(rows, dtype=bool)
        self._answers: Answers | None = None

    def _set(self, batch: TokenBatch) -> None:
        """Makes the rows of a batch those to take."""
        self.batch = batch
        self.lengths = batch.lengths
        self._count = len(batch)
        self.size = self._count, int(batch.cu_seqlens[-1])
        self._order: np.ndarray | None = None  # in which rows are taken, if they are not taken together
        self._taken = 0

    def __lt__(self, other: Submission) -> bool:
        return (self.due, self.number) < (other.due, other.number)

    @property
    def untaken(self) -> int:
        """Number of rows that are not embedded yet."""
        return self._count - self._taken

    def take(self, max_rows: int, max_tokens: int) -> np.ndarray:
        """Removes and returns rows that are not embedded yet, (rows,) int64, indices in `batch`: all in the submitted
        order if they are within the limits, else shorter ones first, so that rows of similar length are computed
        together.

        Args:
            max_rows: at least 1.
            max_tokens: of all returned rows; less than one row has gives that row if it is the first of its batch.
        """
        rows, tokens = self.size
        if not self._taken and (rows == 1 or (rows <= max_rows and tokens <= max_tokens)):
            return self.take_all()
        order = self._by_length()[self._taken : self._taken + max_rows]
        within = int(np.searchsorted(np.cumsum(self.lengths[order]), max_tokens, side="right"))
        taken = order[: max(within, 1)]
        self._taken += len(taken)
        return taken

    def take_all(self) -> np.ndarray:
        """Removes and returns all rows, of which none was taken before."""
        self._taken = self._count
        return _FIRST_ROW if self._count == 1 else np.arange(self._count)

    def tokens_in(self, rows: np.ndarray) -> int:
        """Returns the number of tokens of rows."""
        return self.size[1] if len(rows) == self._count else int(self.lengths[rows].sum())

    def untaken_tokens(self) -> int:
        """Returns the number of tokens of the rows that are not embedded yet."""
        if not self._taken:
            return self.size[1]
        return int(self.lengths[self._by_length()[self._taken :]].sum()) if self.untaken else 0

    def next_length(self) -> int:
        """Returns the number of tokens of the row that `take` returns first if it does not return all."""
        return int(self.lengths[0] if self._count == 1 else self.lengths[self._by_length()[self._taken]])

    def select(self, rows: np.ndarray) -> TokenBatch:
        """Returns rows of the batch, as `take` has returned them."""
        return self.batch if len(rows) == self._count else self.batch.select(rows)

    def _by_length(self) -> np.ndarray:
        if self._order is None:
            self._order = np.argsort(self.lengths, kind="stable")
        return self._order

    def record(self, rows: np.ndarray | int, logits: np.ndarray, exit_index: int, confidence: np.ndarray) -> None:
        """Stores the outputs of an exit, which replace those of earlier exits."""
        if self._logits is None:
            count = self._count
            self._logits = np.zeros((count, self._num_labels), dtype=np.float32)
            self._exit_index = np.zeros(count, dtype=np.int64)
            self._confidence = np.zeros(count, dtype=np.float32)
        self._logits[rows] = logits
        self._exit_index[rows] = exit_index
        self._confidence[rows] = confidence

    def record_out_of_time(self, rows: np.ndarray) -> None:
        """Marks rows that the deadline has stopped."""
        if self._out_of_time is not None:
            self._out_of_time[rows] = True

    def record_all(self, answers: Answers) -> None:
        """Stores the answers of all rows."""
        self._answers = answers

    def answers(self) -> Answers:
        """Returns the stored outputs as answers."""
        answers = self._answers
        if answers is None:
            rows = np.arange(self._count)
            answers = Answers(rows, self._logits, self._exit_index, self._confidence, self._out_of_time)
        answers.request = self.request
        return answers

    def without_rows(self) -> Submission:
        """Returns the submission with the answers of no rows."""
        self.started_at = self.finished_at = self.submitted_at
        self.record_all(Answers.none(self._num_labels))
        self.resolve()
        return self

    def resolve(self) -> None:
        """Sets the result of the future, or the error if there is one, unless it was cancelled."""
        if self.set_running_or_notify_cancel():
            if self.error is not None:
                self.set_exception(self.error)
            else:
                self.set_result(self.answers())


class StreamSubmission(Submission):
    """Rows that arrive batch by batch, for one caller that takes the answers as rows leave."""

    def __init__(self, request: Request, backend: Backend):
        nothing = TokenBatch.from_rows([])
        super().__init__(nothing, request, request.policy, backend.num_labels, 0, 0.0, 0.0)
        self._left: list[Answers] = []

    def extend(self, batch: TokenBatch) -> None:
        """Appends the rows of a batch; all earlier ones must be taken."""
        self.first += self._count
        self._set(batch)

    def record(self, rows: np.ndarray, logits: np.ndarray, exit_index: int, confidence: np.ndarray) -> None:
        if len(rows):
            self._left.append(Answers(rows, logits, np.full(len(rows), exit_index, dtype=np.int64), confidence))

    def record_all(self, answers: Answers) -> None:
        self._left.append(dataclasses.replace(answers, rows=answers.rows + self.first))

    def take_answers(self) -> Answers | None:
        """Removes and returns the answers that were recorded, `None` if there are none."""
        left, self._left = self._left, []
        return Answers.joined(left) if left else None


def resolve_all(submissions: Iterable[Submission]) -> None:
    """Resolves submissions, also if a callback of one is interrupted; raises the first interrupt afterwards."""
    interrupt = None
    for submission in submissions:
        try:
            submission.resolve()
        except BaseException as error:  # `Future` logs other errors of callbacks
            interrupt = interrupt or error
    if interrupt is not None:
        raise interrupt
