raise RuntimeError("side effect failure")
