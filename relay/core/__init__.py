"""The rules of a conversation as values in, values out: no socket, task, clock, random number, file or thread."""
