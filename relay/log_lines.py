"""Text log format: untrusted text in one entry never looks like another entry."""

import logging

from relay.escaping import escape_controls, escape_lines

_INDENT = 4


class LineFormatter(logging.Formatter):
    """Formats an entry as one line, followed by the indented lines of its traceback.

    Line ends and other control characters of a message are escaped, so that a line without indent always begins an
    entry.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry without a trailing line end."""
        record.message = record.getMessage().rstrip("\n")
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        parts = [escape_controls(self.clean(self.formatMessage(record)))]
        if record.exc_info:
            parts.append(self._indent(self.formatException(record.exc_info)))
        if record.stack_info:
            parts.append(self._indent(record.stack_info))
        return "\n".join(parts)

    def clean(self, text: str) -> str:
        """Remove from `text` what must not be logged; subclasses override this."""
        return text

    def _indent(self, text: str) -> str:
        return " " * _INDENT + escape_lines(self.clean(text), _INDENT)


def log_to_stderr() -> None:
    """Log entries from INFO on to standard error, in a process that the relay starts."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
