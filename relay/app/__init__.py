"""What stands around every handler: CORS, the log of refusals, answers without secrets."""
