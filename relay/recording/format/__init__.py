"""How a recording is stored: tags, fields and lines, none of which depends on a Python name."""
