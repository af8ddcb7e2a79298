"""Who calls, and what that one may do: credentials, origins, hosts, nearness, client secrets and the admin's login."""
