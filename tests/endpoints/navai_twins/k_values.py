x, y, z = 1, "s", None
