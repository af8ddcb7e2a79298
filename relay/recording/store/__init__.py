"""Recordings on disk: folder layout, header, writer, reader and retention."""
