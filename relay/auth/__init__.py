"""Authentication and authorization: keys, client secrets, origins, hosts, local peers and the admin login."""
