"""Progress as commands draw it on a console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

from tercet.cli.common import progress_bar


class Bar:
    """A progress bar, one at a time or none; gone when it is closed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress: Progress | None = None
        self._task = TaskID(0)

    def start(self, description: str, total: float, completed: int = 0) -> None:
        """Show a bar in the place of the last one."""
        self.close()
        self.progress = progress_bar(self.console)
        self.progress.start()
        self._task = self.progress.add_task(description, total=total, completed=completed, note="")

    def move(self, completed: float, note: str = "") -> None:
        """Set what is done, and what is said beside the bar, if there is one."""
        if self.progress is not None:
            self.progress.update(self._task, completed=completed, note=note)

    def close(self) -> None:
        """Take the bar away, if there is one."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


@contextmanager
def counting(what: str, *, quiet: bool) -> Iterator[tuple[Progress, TaskID]]:
    """A bar on standard error whose total its user sets, if it has one; none where `quiet`."""
    with progress_bar(Console(stderr=True, quiet=quiet)) as progress:
        yield progress, progress.add_task(what, total=None, note="")
