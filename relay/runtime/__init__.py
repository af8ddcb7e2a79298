"""A session at run time: the only place where rules, codecs and sockets meet."""
