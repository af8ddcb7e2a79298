"""`relay talk`: the device protocol from the terminal."""
