"""Train an agent with a memory, evaluate it, and show what it remembers.

    python train_rl.py                              # PPO + Expire-Span on Corridor
    python train_rl.py --memory lstm --algo a2c --env MiniGrid-MemoryS7-v0
    python train_rl.py --help                       # every option

Exit codes: 0 done, 1 training failed or a file could not be written, 2 wrong options, 130 stopped
by Ctrl-C, 143 by SIGTERM, 129 by a terminal that was closed. However training ends, the model is
saved, unless its weights have diverged.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of what PyTorch was importing

from expire_span.agents import DivergedError, NonFiniteError
from expire_span.training import session as run
from expire_span.training.arguments import UserError, parse, quoted
from expire_span.training.interruption import Interruption
from expire_span.training.run_directory import DiskError
from expire_span.training.table import print_table

FAILED, WRONG_OPTIONS, INTERRUPTED = 1, 2, 130

ENDED = "the environment ended the process, as by sys.exit()"
"""Said instead of taking over an exit code that would say that all went well."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, that of the process if None. Returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        config = parse(argv)
        session = run.open_session(config, argv, _say)
    except UserError as error:
        return _fail(WRONG_OPTIONS, str(error))
    except DiskError as error:
        return _fail(FAILED, str(error))
    except SystemExit as stop:  # tyro's, after --help or its own explanation
        return stop.code if isinstance(stop.code, int) else WRONG_OPTIONS
    except KeyboardInterrupt:
        return _fail(INTERRUPTED, "stopped before training began")
    try:
        return _train(session)
    except DiskError as error:
        return _fail(FAILED, str(error))
    except KeyboardInterrupt:
        model = session.directory.model
        saved = f"The model is saved in {model}" if model.exists() else "Nothing was saved"
        return _fail(INTERRUPTED, f"stopped. {saved}")
    finally:
        with contextlib.suppress(KeyboardInterrupt):  # of somebody who does not wait for wandb
            run.close(session, _say)


def _train(session: run.Session) -> int:
    """Learn, save, evaluate, show. Whatever ends learning, the model is saved, unless its weights
    have diverged."""
    if session.finished:
        _say(f"all {session.config.total_timesteps} steps are done; evaluating the agent again")
        return _evaluate(session, session.directory.model)
    error: BaseException | None = None
    with Interruption(_say) as interruption:
        try:
            try:
                run.learn(session, [interruption], _say)
            finally:
                interruption.defer()
        except DivergedError as lost:  # the last save is better than what is left of the agent
            return _fail(FAILED, str(lost))
        except KeyboardInterrupt:
            interruption.signal = interruption.signal or signal.SIGINT
        except BaseException as raised:
            error = raised
        saved = run.save(session)
    goes_on = _resuming(saved, "goes on")
    if saved != session.directory.model:
        _say(
            f"{session.directory.path} takes no more files; the model is saved in {saved}{goes_on}"
        )
    if isinstance(error, NonFiniteError):
        return _fail(FAILED, f"{error}{goes_on}")
    if error is not None:
        _say(
            f"training failed at step {session.model.num_timesteps}; the model is saved in {saved}"
        )
        if isinstance(error, UserError | SystemExit):
            return _fail(FAILED, str(error) if isinstance(error, UserError) else ENDED)
        raise error
    if interruption.signal is not None:
        _say(
            f"\nstopped at step {session.model.num_timesteps} of {session.config.total_timesteps}. "
            f"The model is saved in {saved}{goes_on}"
        )
        return 128 + interruption.signal
    return _evaluate(session, saved)


def _evaluate(session: run.Session, saved: Path) -> int:
    """Play, write what came of it, and show it with the place where the model was `saved`."""
    kept = f"the model is saved in {saved}{_resuming(saved, 'evaluates again')}"
    with Interruption(_say, at_once=True) as interruption:
        try:
            evaluation = run.evaluate(session, _say)
        except (NonFiniteError, run.EndlessError) as error:
            return _fail(FAILED, f"{error}; {kept}")
        except KeyboardInterrupt:
            _say(f"\nevaluation stopped; {kept}")
            return 128 + (interruption.signal or signal.SIGINT)
        except SystemExit:
            return _fail(FAILED, f"{ENDED}; {kept}")
        except BaseException:
            _say(f"evaluation failed; {kept}")
            raise
    figures = run.figures_of(session, evaluation)
    code = 0 if saved == session.directory.model else FAILED
    try:
        run.report(session, evaluation, figures)
    except DiskError as error:  # what was measured can still be shown
        code = _fail(FAILED, str(error))
    try:
        print_table(figures, session.directory, saved)
    except OSError as error:
        _discard_stdout()
        code = _fail(FAILED, f"cannot print the results: {error.strerror}; the model is in {saved}")
    if hint := run.hint(session, figures, saved):
        _say(hint)
    return code


def _resuming(saved: Path, does: str) -> str:
    """What --resume does with a saved model, if config.yaml, which it needs, lies beside it."""
    resumes = saved.with_name("config.yaml").exists()
    return f"; train_rl.py --resume {quoted(saved.parent)} {does}" if resumes else ""


def _discard_stdout() -> None:
    """Send what stdout still holds nowhere, for Python tries to write it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _say(message: str) -> None:
    if sys.stderr is not None:  # which it is if closed when Python began
        with contextlib.suppress(OSError):  # of a terminal that was closed later
            print(message, file=sys.stderr, flush=True)


def _fail(code: int, message: str) -> int:
    _say(f"error: {message}")
    return code


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
