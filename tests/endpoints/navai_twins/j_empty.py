# Nothing is exported.
