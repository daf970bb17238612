"""People, passwords, tokens, API keys and public keys (JWKS). Other services verify its tokens without asking it."""
