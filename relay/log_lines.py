"""Text logs of which each line can be trusted: foreign text in an entry never looks like another entry."""

import logging

from relay.escaping import escape_controls, escape_lines

_INDENT = 4


class LineFormatter(logging.Formatter):
    """One line an entry; a traceback follows on lines of its own, all indented.

    Line ends and other control characters of a message are escaped. A traceback's message is cut into indented lines.
    So a line that begins at the margin is always the beginning of an entry.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The entry without a line end behind it."""
        record.message = record.getMessage().rstrip("\n")
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        parts = [escape_controls(self.clean(self.formatMessage(record)))]
        if record.exc_info:
            parts.append(self._indented(self.formatException(record.exc_info)))
        if record.stack_info:
            parts.append(self._indented(record.stack_info))
        return "\n".join(parts)

    def clean(self, text: str) -> str:
        """`text` without what must not be logged; here that is nothing."""
        return text

    def _indented(self, text: str) -> str:
        return " " * _INDENT + escape_lines(self.clean(text), _INDENT)


def log_to_stderr() -> None:
    """Send all entries from INFO on to standard error, for a process that the relay starts."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
