"""Who is behind a token: those of a file, and those of an OpenID Connect issuer."""
