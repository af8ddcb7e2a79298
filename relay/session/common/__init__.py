"""Rules, values and limits that all kinds of sessions share."""
