"""The handlers of the routes: WebSocket sessions, pages and JSON APIs."""
