"""The routes' handlers: from a request to a session, a page or a short answer."""
